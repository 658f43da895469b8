"""Whether the kernel names the right owner of a connection, and nobody where it cannot."""

from __future__ import annotations

import os
import socket
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from fileexport.peers import NOBODY, _ask, _end, _owner_in, owner_of

#: Some user that is neither this process's nor `NOBODY`.
STRANGER = 54_321
#: No socket operation here may take longer, in seconds; none takes a hundredth of it.
LIMIT = 10.0


@dataclass
class Transport:
    """What `owner_of` looks at of a transport."""

    socket: object


def connect(address: tuple[str, int]) -> socket.socket:
    """A new IPv4 connection to `address`."""
    made = socket.socket(socket.AF_INET)
    made.settimeout(LIMIT)
    made.connect(address)
    return made


class OwnerTests(SynchronousTestCase):
    """`owner_of` on real sockets."""

    if sys.platform != "linux":
        skip = "only Linux tells whose socket it is"

    def listening(self, family: int, address: str, dual: bool = False) -> socket.socket:
        """A listening socket that is closed after the test."""
        try:
            made = socket.create_server((address, 0), family=family, dualstack_ipv6=dual)
        except OSError as error:
            raise SkipTest(f"cannot listen on {address}: {error}") from error
        self.addCleanup(made.close)
        made.settimeout(LIMIT)
        return made

    def connected(
        self, listener: socket.socket, family: int, address: str
    ) -> tuple[socket.socket, Transport]:
        """A client of `listener`, and the server's side of its connection; both closed after the test."""
        client = socket.socket(family)
        self.addCleanup(client.close)
        client.settimeout(LIMIT)
        client.connect((address, listener.getsockname()[1]))
        return client, self.accepted(listener)

    def accepted(self, listener: socket.socket) -> Transport:
        """The server's side of the next connection."""
        server, _ = listener.accept()
        self.addCleanup(server.close)
        return Transport(server)

    def as_stranger(self, act: Callable[[], object], uid: int = STRANGER) -> None:
        """Have a process of another user do `act` and then wait until the test is over."""
        if os.geteuid() != 0:
            raise SkipTest("only root can start a process of another user")
        waits, ends = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.close(ends)
                os.setgid(uid)
                os.setuid(uid)
                held = act()
                os.read(waits, 1)
                del held
            finally:
                os._exit(0)
        os.close(waits)
        self.addCleanup(os.waitpid, child, 0)
        self.addCleanup(os.close, ends)

    def test_tcp(self) -> None:
        """A process of this user is known on 127.0.0.1 and on ::1."""
        for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
            _, server = self.connected(self.listening(family, address), family, address)
            self.assertEqual(owner_of(server), os.geteuid(), address)

    def test_other_loopback_address(self) -> None:
        """All of 127.0.0.0/8 is this machine."""
        _, server = self.connected(self.listening(socket.AF_INET, "127.9.8.7"), socket.AF_INET, "127.9.8.7")
        self.assertEqual(owner_of(server), os.geteuid())

    def test_dual_stack_listener(self) -> None:
        """A client by IPv4 is known to a listener that sees it as IPv6."""
        listener = self.listening(socket.AF_INET6, "::", dual=True)
        _, server = self.connected(listener, socket.AF_INET, "127.0.0.1")
        self.assertEqual(owner_of(server), os.geteuid())

    def test_dual_stack_client(self) -> None:
        """A client whose own socket is IPv6 is known to a listener that sees it as IPv4."""
        listener = self.listening(socket.AF_INET, "127.0.0.1")
        _, server = self.connected(listener, socket.AF_INET6, "::ffff:127.0.0.1")
        self.assertEqual(owner_of(server), os.geteuid())

    def test_stranger(self) -> None:
        """A process of another user is told from ours, by TCP and by TCP seen as IPv6."""
        for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::")):
            listener = self.listening(family, address, dual=family == socket.AF_INET6)
            port = listener.getsockname()[1]
            self.as_stranger(partial(connect, ("127.0.0.1", port)))
            self.assertEqual(owner_of(self.accepted(listener)), STRANGER, address)

    def test_nobody(self) -> None:
        """The uid that may stand for any user is nobody's."""
        listener = self.listening(socket.AF_INET, "127.0.0.1")
        address = listener.getsockname()
        self.as_stranger(partial(connect, address), NOBODY)
        self.assertIsNone(owner_of(self.accepted(listener)))

    def test_each_connection_by_itself(self) -> None:
        """Two connections to one listener have each their own owner."""
        listener = self.listening(socket.AF_INET, "127.0.0.1")
        _, ours = self.connected(listener, socket.AF_INET, "127.0.0.1")
        self.as_stranger(partial(connect, listener.getsockname()))
        self.assertEqual([owner_of(self.accepted(listener)), owner_of(ours)], [STRANGER, os.geteuid()])

    def test_sent_and_closed(self) -> None:
        """A peer that sent its request and closed at once is nobody, root's uid 0 least of all."""
        for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
            client, server = self.connected(self.listening(family, address), family, address)
            client.sendall(b"GET /delete HTTP/1.1\r\n\r\n")
            client.close()
            self.assertIsNone(owner_of(server), address)

    def test_half_closed(self) -> None:
        """A peer that will send no more is nobody either."""
        listener = self.listening(socket.AF_INET, "127.0.0.1")
        client, server = self.connected(listener, socket.AF_INET, "127.0.0.1")
        client.shutdown(socket.SHUT_WR)
        self.assertIsNone(owner_of(server))

    def test_reset(self) -> None:
        """A peer that reset the connection is nobody."""
        listener = self.listening(socket.AF_INET, "127.0.0.1")
        client, server = self.connected(listener, socket.AF_INET, "127.0.0.1")
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        self.assertIsNone(owner_of(server))

    def test_closed_here(self) -> None:
        """A connection that is closed on our side has no owner."""
        listener = self.listening(socket.AF_INET, "127.0.0.1")
        _, server = self.connected(listener, socket.AF_INET, "127.0.0.1")
        assert isinstance(server.socket, socket.socket)
        server.socket.close()
        self.assertIsNone(owner_of(server))

    def test_listening_socket(self) -> None:
        """A socket that is connected to nobody has no owner."""
        self.assertIsNone(owner_of(Transport(self.listening(socket.AF_INET, "127.0.0.1"))))

    def test_not_loopback(self) -> None:
        """A peer on another address of this machine is not asked about."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as route:
            try:
                route.connect(("192.0.2.1", 9))  # sends nothing; tells which address would be ours
            except OSError as error:
                raise SkipTest("this machine has no address but loopback") from error
            address = route.getsockname()[0]
        _, server = self.connected(self.listening(socket.AF_INET, address), socket.AF_INET, address)
        self.assertIsNone(owner_of(server))

    def test_unix(self) -> None:
        """The peer of a UNIX socket is who connected, whoever that is."""
        path = self.mktemp()[-80:]
        listener = socket.socket(socket.AF_UNIX)
        self.addCleanup(listener.close)
        listener.bind("\0" + path)  # without a file that a stranger would have to reach
        listener.listen()
        listener.settimeout(LIMIT)
        for uid in (os.geteuid(), STRANGER):
            client = socket.socket(socket.AF_UNIX)
            self.addCleanup(client.close)
            if uid == STRANGER:
                self.as_stranger(partial(client.connect, "\0" + path))
            else:
                client.connect("\0" + path)
            self.assertEqual(owner_of(self.accepted(listener)), uid)

    def test_no_socket(self) -> None:
        """Whatever is no connection has no owner and is no error."""
        for thing in (None, StringTransport(), Transport(None), Transport(7), object()):
            self.assertIsNone(owner_of(thing))

    def test_answers(self) -> None:
        """An answer counts only when it is whole and about this very connection."""
        listener = self.listening(socket.AF_INET, "127.0.0.1")
        asked = [self.connected(listener, socket.AF_INET, "127.0.0.1")[0] for _ in range(2)]
        (source, destination), (other, _) = [
            (_end(client.getsockname()), _end(client.getpeername())) for client in asked
        ]
        answer = _ask(source, destination)
        self.assertEqual(_owner_in(answer, source, destination), os.geteuid())
        self.assertIsNone(_owner_in(answer, other, destination))
        self.assertIsNone(_owner_in(answer, destination, source))
        sequence = struct.pack("=I", 7)
        self.assertIsNone(_owner_in(answer[:8] + sequence + answer[12:], source, destination))
        for size in range(88):  # nlmsghdr and inet_diag_msg
            self.assertIsNone(_owner_in(answer[:size], source, destination), size)

    def test_no_descriptors_leak(self) -> None:
        """Asking often leaves no descriptor open."""
        listener = self.listening(socket.AF_INET, "127.0.0.1")
        _, server = self.connected(listener, socket.AF_INET, "127.0.0.1")
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(50):
            owner_of(server)
        self.assertLessEqual(len(os.listdir("/proc/self/fd")), before)
