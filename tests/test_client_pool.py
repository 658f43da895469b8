"""The connections of a client: who may use them, and until when."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable

from fileexport.paths import RelPath
from fileexport.wire import messages as m
from tests.client_server import Peer, ServerCase

ENTRIES = [m.Entry(RelPath((name,)), "file", 5, 9) for name in "ab"]


def listing(peer: Peer) -> None:
    """Answer each listing with two entries."""
    while True:
        stream, _ = peer.hear(m.List)
        peer.say(m.Entries(ENTRIES), stream)
        peer.say(m.End(), stream)


class CloseTests(ServerCase):
    """`close`."""

    def test_in_use(self) -> None:
        """A connection that was in use at `close` is closed when it is given back; others are kept."""
        server = self.server(listing)
        client = server.client()
        found = client.entries("/")
        next(found)
        client.close()
        self.assertEqual(len(list(found)), 1)
        client.list_files("/")
        self.assertEqual(server.connections, 2)
        client.list_files("/")
        self.assertEqual(server.connections, 2)
        client.close()


class ForkTests(ServerCase):
    """Processes that share a client by a fork."""

    def setUp(self) -> None:
        super().setUp()
        self.go_on = threading.Event()
        self.told: list[object] = []

    def script(self, peer: Peer) -> None:
        """Begin a listing, note what is heard until the test goes on, and end it."""
        stream, _ = peer.hear(m.List)
        peer.say(m.Entries(ENTRIES[:1]), stream)
        self.go_on.wait(20)
        peer.socket.settimeout(0.0)
        with contextlib.suppress(BlockingIOError, ConnectionError):
            while True:
                self.told.append(peer.next())
        peer.socket.settimeout(20.0)
        peer.say(m.Entries(ENTRIES[1:]), stream)
        peer.say(m.End(), stream)
        listing(peer)

    def carry_out(self, act: Callable[[], object]) -> int:
        """What a child that does something says at its end."""
        child = os.fork()
        if not child:
            code = 1
            try:
                act()
                code = 0
            except ConnectionError:
                code = 2
            finally:
                os._exit(code)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    def test_open_iterator(self) -> None:
        """A child neither reads nor says anything on a connection of its parent, which goes on."""
        for act, code in (("close", 0), ("__next__", 2)):
            self.go_on.clear()
            server = self.server(self.script)
            client = server.client()
            found = client.entries("/")
            self.assertEqual(next(found).path, "a")
            self.assertEqual(self.carry_out(getattr(found, act)), code)
            self.assertEqual(self.carry_out(client.close), 0)
            self.go_on.set()
            self.assertEqual([one.path for one in found], ["b"])
            self.assertEqual(len(client.list_files("/")), 2)
            self.assertEqual((self.told, server.connections), ([], 1))
            client.close()

    def test_close(self) -> None:
        """A child that closes its client says no goodbye for the idle connections of its parent."""
        server = self.server(listing)
        client = server.client()
        client.list_files("/")
        self.assertEqual(self.carry_out(client.close), 0)
        client.list_files("/")
        self.assertEqual(server.connections, 1)
        client.close()
