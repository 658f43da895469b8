"""What the service manager hears, on a real socket of its own."""

from __future__ import annotations

import os
import resource
import socket
import time
from pathlib import Path

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from fileexport import notify
from fileexport.notify import Notifier


class Manager:
    """The socket of a service manager, until the test is over; `address` as $NOTIFY_SOCKET has it."""

    def __init__(self, case: SynchronousTestCase, address: str | None = None) -> None:
        # An address may have 107 bytes, and the test's own directory may lie deep.
        self.address = address or "@" + os.path.abspath(case.mktemp())[-90:]
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        case.addCleanup(self.socket.close)
        self.socket.bind(self.name)

    @property
    def name(self) -> str:
        """The address as the kernel has it."""
        return "\0" + self.address[1:] if self.address.startswith("@") else self.address

    def heard(self) -> list[str]:
        """The messages that have come since it was last asked."""
        messages = []
        while True:
            try:
                messages.append(self.socket.recv(4096).decode("utf-8"))
            except BlockingIOError:
                return messages


class Case(SynchronousTestCase):
    """Has a manager, and an environment that names it."""

    def setUp(self) -> None:
        self.manager = Manager(self)
        self.environ = {"NOTIFY_SOCKET": self.manager.address, "HOME": "/"}


class MessageTests(Case):
    """The messages of sd_notify(3)."""

    def test_ready(self) -> None:
        """Ready is said with a line for people, or without."""
        notifier = Notifier(self.environ)
        notifier.ready("exporting /srv")
        notifier.ready()
        self.assertEqual(self.manager.heard(), ["READY=1\nSTATUS=exporting /srv", "READY=1"])

    def test_stopping(self) -> None:
        """So is the beginning of a stop."""
        Notifier(self.environ).stopping()
        self.assertEqual(self.manager.heard(), ["STOPPING=1\nSTATUS=stopping"])

    def test_reloading(self) -> None:
        """A reload names the time, in microseconds of the monotonic clock, in the same message."""
        before = time.monotonic_ns() // 1000
        Notifier(self.environ).reloading()
        after = time.monotonic_ns() // 1000
        [message] = self.manager.heard()
        first, _, stamp = message.partition("\nMONOTONIC_USEC=")
        self.assertEqual(first, "RELOADING=1")
        self.assertTrue(before <= int(stamp) <= after, stamp)

    def test_status_is_one_line(self) -> None:
        """A directory's name forges no message, and one that is not UTF-8 is still sent."""
        Notifier(self.environ).ready("exporting /a\nSTOPPING=1\r\udcff")
        self.assertEqual(self.manager.heard(), ["READY=1\nSTATUS=exporting /a STOPPING=1 ?"])

    def test_path(self) -> None:
        """The socket may be a file."""
        path = Path(self.mktemp())
        directory = os.open(path.parent, os.O_PATH)
        self.addCleanup(os.close, directory)
        # By way of the descriptor the path is short, and absolute.
        manager = Manager(self, f"/proc/self/fd/{directory}/{path.name}")
        Notifier({"NOTIFY_SOCKET": manager.address}).ready()
        self.assertEqual(manager.heard(), ["READY=1"])

    def test_environment(self) -> None:
        """What was meant for us is taken out of the environment, and nothing else."""
        self.environ |= {"WATCHDOG_USEC": "2000000", "WATCHDOG_PID": str(os.getpid())}
        Notifier(self.environ)
        self.assertEqual(self.environ, {"HOME": "/"})


class SilenceTests(Case):
    """Where nobody listens."""

    def test_no_socket(self) -> None:
        """Without a socket, or with one of another kind, nothing is sent and nothing is raised."""
        for environ in ({}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "vsock:2:1234"}, {"NOTIFY_SOCKET": "x"}):
            notifier = Notifier(environ)
            notifier.ready("x")
            notifier.reloading()
            notifier.stopping()
            notifier.watch(Clock())
        self.assertEqual(self.manager.heard(), [])

    def test_nobody_there(self) -> None:
        """A manager that is gone, and a name too long for a socket, raise nothing."""
        self.manager.socket.close()
        for address in (self.manager.address, "/" + "x" * 200, str(Path(self.mktemp()).absolute())):
            Notifier({"NOTIFY_SOCKET": address}).ready()

    def test_comes_back(self) -> None:
        """A manager that was started anew under the same name is heard by."""
        notifier = Notifier(self.environ)
        self.manager.socket.close()
        notifier.ready()
        manager = Manager(self, self.manager.address)
        notifier.ready()
        self.assertEqual(manager.heard(), ["READY=1"])

    def test_no_descriptors(self) -> None:
        """Who has run out of descriptors is still heard; who starts so stays silent."""
        notifier = Notifier(self.environ)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
        try:
            notifier.ready()
            Notifier({"NOTIFY_SOCKET": self.manager.address}).ready()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        self.assertEqual(self.manager.heard(), ["READY=1"])

    def test_full(self) -> None:
        """A manager that reads nothing loses messages; it does not hold us up for ever."""
        self.patch(notify, "PATIENCE", 1000)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as others:
            others.connect(self.manager.name)
            self.assertRaises(BlockingIOError, lambda: [others.send(b"X=1") for _ in range(100_000)])
            Notifier(self.environ).ready()
        self.assertNotIn("READY=1", self.manager.heard())


class WatchdogTests(Case):
    """Signs of life."""

    def watched(self, **variables: str) -> list[int]:
        """How many signs come at once, and after each of three seconds."""
        clock = Clock()
        Notifier({**self.environ, **variables}).watch(clock)
        counts = [len(self.manager.heard())]
        for _ in range(3):
            clock.pump([0.25] * 4)
            heard = self.manager.heard()
            self.assertEqual(set(heard) - {"WATCHDOG=1"}, set())
            counts.append(len(heard))
        return counts

    def test_twice_as_often(self) -> None:
        """They come at once, and then twice in the time that the manager waits."""
        self.assertEqual(self.watched(WATCHDOG_USEC="2000000", WATCHDOG_PID=str(os.getpid())), [1, 1, 1, 1])
        self.assertEqual(self.watched(WATCHDOG_USEC="1000000"), [1, 2, 2, 2])

    def test_not_ours(self) -> None:
        """None come where no watchdog runs, where it waits for another process, or says no time."""
        self.assertEqual(self.watched(), [0, 0, 0, 0])
        self.assertEqual(self.watched(WATCHDOG_USEC="1000000", WATCHDOG_PID="1"), [0, 0, 0, 0])
        for text in ("", "0", "-1", "1e6", "x", "1" * 400):
            self.assertEqual(self.watched(WATCHDOG_USEC=text), [0, 0, 0, 0], text)
