"""One connection of the blocking client, on a pair of sockets: waiting, and what a dying server said."""

from __future__ import annotations

import socket
import threading

from twisted.trial.unittest import SynchronousTestCase

from fileexport.client import connection
from fileexport.client.connection import Connection, Wait
from fileexport.client.login import prove
from fileexport.client.operation import Operation
from fileexport.errors import PeerGone
from fileexport.paths import RelPath
from fileexport.proofs import ClientProof
from fileexport.wire import messages as m
from fileexport.wire.frames import Data
from fileexport.wire.session import DEFAULT_OFFER, Session
from fileexport.wire.streams import Role
from tests.client_server import TOKEN, Peer

CONTENT = bytes(range(256)) * 256


class WaitTests(SynchronousTestCase):
    """Time-outs."""

    def test_runs_out(self) -> None:
        """A wait ends once, and begins again with progress."""
        wait = Wait(0.001)
        while not wait_is_over(wait):
            pass
        self.assertRaises(TimeoutError, wait.left)
        self.assertTrue(Wait().left() > 50)
        self.assertTrue(Wait(1, extra=60).left() > 50)

    def test_no_time(self) -> None:
        """Nothing, less, and what is no number is no time-out."""
        for milliseconds in (0, -1, float("nan"), float("inf"), 2**31):
            self.assertRaises(ValueError, Wait, milliseconds)


def wait_is_over(wait: Wait) -> bool:
    """Whether nothing is left."""
    try:
        return wait.left() <= 0
    except TimeoutError:
        return True


class ConnectionTests(SynchronousTestCase):
    """A client and a server that know each other."""

    def setUp(self) -> None:
        ours, theirs = socket.socketpair()
        self.addCleanup(ours.close)
        self.addCleanup(theirs.close)
        # So that what the server says takes several reads.
        self.patch(connection, "_BUFFER", 1024)
        self.connection = Connection(ours, Session(Role.CLIENT), encrypted=False)
        self.peer = Peer(theirs, DEFAULT_OFFER, ())
        self.wait = Wait(20_000)
        thread = threading.Thread(target=self.peer.let_in)
        thread.start()
        prove(self.connection, ClientProof(TOKEN), b"", self.wait)
        thread.join()

    def begin(self) -> Operation:
        """Ask for a file of which the server sends the beginning."""
        operation = Operation(self.connection, m.Read(RelPath(("a",))), self.wait)
        stream, _ = self.peer.hear(m.Read)
        self.peer.say(m.Content(len(CONTENT) + 1, 0, b""), stream)
        self.peer.raw(m.encode(m.Ping(b"?")))
        self.peer.data(stream, CONTENT)
        return operation

    def test_server_that_went(self) -> None:
        """What a server sent before it went is read to its end, although nothing can be written any more."""
        operation = self.begin()
        self.peer.socket.close()
        operation.reply(m.Content)
        got = bytearray()
        with self.assertRaises(PeerGone):
            while isinstance(found := operation.content(), Data):
                got += found.piece
        self.assertEqual(bytes(got), CONTENT)
        self.assertFalse(self.connection.is_sound)

    def test_cancelled(self) -> None:
        """After a cancel what was under way is passed over, and the next operation has its own answers."""
        operation = self.begin()
        operation.reply(m.Content)
        operation.cancel()
        second = Operation(self.connection, m.Stat(RelPath()), self.wait)
        self.assertEqual(self.peer.hear(m.Reset), (1, m.Reset()))
        stream, _ = self.peer.hear(m.Stat)
        self.peer.say(m.Entries([m.Entry(RelPath(), "directory", 0, 0)]), stream)
        self.peer.say(m.End(), stream)
        self.assertEqual(len(second.reply(m.Entries).entries), 1)
        second.end()
        self.assertTrue(second.is_over and self.connection.is_sound)

    def test_refused_while_writing(self) -> None:
        """What the server ended an operation with is raised also where it was read while we wrote."""
        for use in (
            lambda operation: operation.say(m.End(0, bytes(32))),
            lambda operation: operation.room(),
            lambda operation: operation.has_news(),
        ):
            operation = Operation(self.connection, m.Write(RelPath(("a",)), 0, 0), self.wait, "/a")
            stream, _ = self.peer.hear(m.Write)
            self.peer.say(m.Reset(4), stream)
            self.connection.absorb()
            error = self.assertRaises(FileExistsError, use, operation)
            self.assertEqual(error.filename, "/a")

    def test_leaving_is_no_news(self) -> None:
        """A server that is stopping, but goes on with this operation, has not answered it."""
        operation = Operation(self.connection, m.WriteFiles(RelPath()), self.wait)
        stream, _ = self.peer.hear(m.WriteFiles)
        self.peer.session.leave()
        self.peer.flush()
        self.assertFalse(operation.has_news())
        self.assertTrue(self.connection.is_leaving)
        self.peer.say(m.Outcome([m.Range(0, 1)]), stream)
        self.assertTrue(operation.has_news())

    def test_pieces_while_writing(self) -> None:
        """Content that comes while we write is kept, whole and in order."""
        operation = self.begin()
        self.connection.absorb()
        self.connection.absorb()
        self.assertTrue(operation.has_news())
        operation.reply(m.Content)
        got = bytearray()
        while len(got) < len(CONTENT):
            found = operation.content()
            assert isinstance(found, Data)
            got += found.piece
        self.assertEqual(bytes(got), CONTENT)
