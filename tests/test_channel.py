"""What a thread of the bridge takes for its connection."""

from __future__ import annotations

import threading

import msgspec
from twisted.internet.task import deferLater

from fileexport.client.deferred.channel import MAX_UNSENT
from fileexport.errors import row_for
from fileexport.wire import messages as m
from fileexport.wire.frames import Data
from fileexport.wire.session import DEFAULT_OFFER
from tests.async_case import BridgeCase
from tests.client_server import Peer

MIB = 1 << 20


class RoomTests(BridgeCase):
    """Who waits because too much has not left."""

    def test_refused_meanwhile(self) -> None:
        """An upload that the server ends while it waits for room ends at once; the other goes on later."""
        self.write("a", 24 * MIB)
        is_full, may_go_on = threading.Event(), threading.Event()

        def script(peer: Peer) -> None:
            begun: dict[str, int] = {}
            while len(begun) < 2:
                found = peer.next()
                if not isinstance(found, Data) and isinstance(found.message, m.Write):
                    begun[found.message.path.name] = found.stream
                    peer.say(m.Ready(0), found.stream)
            is_full.wait()
            peer.say(m.Reset(row_for(FileExistsError()).wire, "there already"), begun["b"])
            may_go_on.wait()
            while isinstance(found := peer.next(), Data) or not isinstance(found.message, m.End):
                pass
            peer.say(found.message, found.stream)
            peer.next()

        offer = msgspec.structs.replace(DEFAULT_OFFER, stream_credit=1 << 30, connection_credit=1 << 30)
        client = self.scripted(script, options={"offer": offer})

        async def send() -> tuple[type, bool]:
            one, other = (client.upload_file(self.here / "a", "/", name) for name in "bc")
            while not any(link.unsent >= MAX_UNSENT for link in client._board._links):
                await deferLater(self.thread.reactor, 0.001)
            is_full.set()
            refused = await self.fails(one)
            may_go_on.set()
            return type(refused), await other

        self.assertEqual(self.run_(send), (FileExistsError, True))
