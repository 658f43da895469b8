"""The daemon as a service of an application: made from settings, started, stopped, started again."""

from __future__ import annotations

import gc
import os
import resource
import signal
from pathlib import Path
from typing import Any

from twisted.application.service import IService, MultiService
from twisted.internet.defer import Deferred
from twisted.logger import LogLevel
from zope.interface.verify import verifyObject

from fileexport.assembly import GRACE
from fileexport.config import LogFormat, Settings
from fileexport.embedded import EmbeddedService
from fileexport.errors import ConfigurationError, ListenError, StateError
from fileexport.service import make_service
from fileexport.startup import prepare_settings
from tests.machine import TOKEN, Machine, ServiceCase
from tests.watched import open_descriptors

#: More than any buffer on the way holds.
BIG = 8 << 20


class Case(ServiceCase):
    """Makes services of an application's own."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(os, "environ", {"HOME": str(self.base)})

    def made(self, *, token: str | None = TOKEN, **given: Any) -> EmbeddedService:
        """The service of the root with these settings."""
        return make_service(Settings(root=str(self.root), **given), reactor=self.machine, token=token)

    def serving(self, service: EmbeddedService) -> EmbeddedService:
        """The service, started as an application does it, until the test is over."""
        service.privilegedStartService()
        service.startService()
        self.machine.begin()
        self.addCleanup(self.ended, service)
        return service

    def ended(self, service: EmbeddedService) -> None:
        self.over(service.interrupt())

    def over(self, done: Deferred[None]) -> None:
        """Turn until a stop is over."""
        self.machine.advance(0)
        self.machine.finish(done)
        self.successResultOf(done)


class MakingTests(Case):
    """`make_service`, and what it refuses."""

    def mistakes(self, settings: Settings, token: str | None = TOKEN) -> tuple[str, ...]:
        """What is wrong with these settings."""
        error = self.assertRaises(
            ConfigurationError, make_service, settings, reactor=self.machine, token=token
        )
        for line in error.problems:
            self.assertEqual(len(line.splitlines()), 1)
        problems: tuple[str, ...] = error.problems
        return problems

    def test_service(self) -> None:
        """It is a service for any parent, from nothing but a root; nothing listens before it starts."""
        verifyObject(IService, self.made())
        self.assertEqual(self.machine.tcpServers, [])

    def test_mistakes(self) -> None:
        """All mistakes are named at once, one line each."""
        none = str(self.base / "none")
        lines = self.mistakes(
            Settings(root=none, private_key=none, token_file=none, http=("none",), transfer=("none",)), "x"
        )
        self.assertEqual(len(lines), 5, lines)
        self.assertEqual(len(self.mistakes(Settings())), 1)

    def test_business_of_the_application(self) -> None:
        """A log file is refused, and a configuration file, which nobody would read."""
        root = str(self.root)
        for settings in (Settings(root=root, log_file="log"), Settings(root=root, config="config")):
            self.assertEqual(len(self.mistakes(settings)), 1)

    def test_generated_token(self) -> None:
        """Without a token one is generated, as the daemon does it."""
        self.serving(self.made(token=None, state=str(self.base / "state")))
        token = (self.base / "state" / "token").read_text().split()[0]
        self.assertEqual(self.get("/-/files/hello.txt", token=token).body, b"hello\n")


class ServingTests(Case):
    """A service that runs."""

    def test_serves(self) -> None:
        """It listens where its settings say, and answers those who have its token."""
        service = self.made(port=1, transfer_port=2)
        self.assertEqual((service.tcp_addresses, service.places, service.connections), ((), (), 0))
        self.serving(service)
        self.assertTrue(service.running)
        self.assertEqual({port for _, port in service.tcp_addresses}, {1, 2})
        self.assertIn("transfer on tcp 127.0.0.1:2", service.places)
        self.assertEqual(self.get("/-/files/hello.txt").body, b"hello\n")
        connection = self.connect()
        self.assertEqual(service.connections, 1)
        connection.lose()

    def test_leaves_the_process_alone(self) -> None:
        """No signal is taken, and no limit is changed."""
        before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)]
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.serving(self.made(max_concurrent=limits[0]))
        after = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)]
        self.assertEqual((after, resource.getrlimit(resource.RLIMIT_NOFILE)), (before, limits))

    def test_log(self) -> None:
        """The banner and a line for each request go to Twisted's log, as text or as JSON."""
        for form in LogFormat:
            self.machine = Machine()
            service = self.serving(self.made(log_format=form))
            self.get("/-/files/hello.txt")
            self.assertIn(f"exporting {self.root}", self.logged(LogLevel.info))
            found = [event for event in self.events if event.get("log_namespace") == "fileexport.access"]
            self.assertIn("/-/files/hello.txt", str(found[-1]["line"]))
            self.ended(service)

    def test_reload(self) -> None:
        """Tokens are read again when the application says so, in a service that runs."""
        path = self.tokens()[0]
        service = self.made(token=None, token_file=path)
        service.reload()
        self.serving(service)
        self.assertEqual(self.get("/-/files/hello.txt").status, 200)
        Path(path).write_text("another-token-of-mine\n")
        service.reload()
        self.assertEqual(self.get("/-/files/hello.txt").status, 401)


class StoppingTests(Case):
    """The end of a service, and its next start."""

    def big(self) -> None:
        (self.root / "big").write_bytes(bytes(BIG))

    def test_nothing_left(self) -> None:
        """After a stop nothing listens and nothing is open; the service may be started again."""
        service = self.made()
        before = open_descriptors()
        for _ in range(3):
            service.startService()
            self.machine.begin()
            self.assertEqual(self.get("/-/files/hello.txt", len(self.machine.tcpServers) - 4).status, 200)
            self.over(service.stopService())
            self.assertEqual((self.machine.listening, service.running), (set(), False))
            self.assertEqual(open_descriptors(), before)

    def test_parent(self) -> None:
        """A parent starts and stops it with its other children, also where it runs already."""
        parent = MultiService()
        service = self.made()
        service.setServiceParent(parent)
        parent.privilegedStartService()
        parent.startService()
        self.machine.begin()
        self.assertEqual(len(self.machine.listening), 4)
        self.over(parent.stopService())
        parent.startService()
        self.assertEqual(len(self.machine.listening), 4)
        removed: Any = service.disownServiceParent()
        self.over(removed)
        service.setServiceParent(parent)
        self.assertEqual(len(self.machine.listening), 4)
        self.over(parent.stopService())
        self.assertEqual(self.machine.listening, set())

    def test_several(self) -> None:
        """One parent may have several; each ends by itself."""
        parent = MultiService()
        first = self.made(state=str(self.base / "first"), http=("none",), transfer_port=1)
        second = self.made(state=str(self.base / "second"), http=("none",), transfer_port=2)
        for service in (first, second):
            service.setServiceParent(parent)
        parent.startService()
        self.machine.begin()
        self.over(first.stopService())
        self.assertEqual({host.getHost().port for host in self.machine.listening}, {2})
        self.over(parent.stopService())

    def test_not_started(self) -> None:
        """What was not started, or only half, is stopped at once; so is what has stopped."""
        service = self.made()
        self.successResultOf(service.stopService())
        before = open_descriptors()
        service.privilegedStartService()
        self.over(service.stopService())
        self.assertEqual((self.machine.listening, open_descriptors()), (set(), before))
        self.successResultOf(service.interrupt())

    def test_cannot_listen(self) -> None:
        """A listener that cannot be opened is an error of the start; nothing stays open."""
        self.machine = Machine(6768)
        service = self.made()
        before = open_descriptors()
        for start in (service.privilegedStartService, service.startService):
            self.assertRaises(ListenError, start)
            self.machine.advance(0)
            self.over(service.stopService())
            self.assertEqual((self.machine.listening, open_descriptors()), (set(), before))
            self.assertFalse(service.running)

    def test_stopping(self) -> None:
        """It is started again when a stop is over, and not before, which is said; the stop goes on."""
        service = self.serving(self.made())
        done = service.stopService()
        for start in (service.privilegedStartService, service.startService):
            error = self.assertRaises(StateError, start)
            self.assertIn("the service is stopping", str(error))
            self.assertFalse(service.running)
        self.over(done)
        service.startService()
        self.assertTrue(service.places)

    def test_running(self) -> None:
        """Starting what runs is an error, and changes nothing."""
        service = self.serving(self.made())
        places = service.places
        for start in (service.privilegedStartService, service.startService):
            self.assertRaises(RuntimeError, start)
            self.assertTrue(service.running)
            self.assertEqual(service.places, places)

    def test_state_in_use(self) -> None:
        """A state that another one has is an error of the start; nothing stays open."""
        self.serving(self.made(port=1, transfer_port=2))
        gc.collect()  # what earlier tests left must not go between the two looks
        listening, before = set(self.machine.listening), open_descriptors()
        second = self.made(port=3, transfer_port=4)
        self.assertRaises(StateError, second.startService)
        self.over(second.stopService())
        self.assertEqual((self.machine.listening, open_descriptors()), (listening, before))

    def test_in_flight(self) -> None:
        """A stop gives what is in flight its ten seconds; who asks meanwhile waits as well."""
        self.big()
        service = self.serving(self.made())
        connection = self.connect()
        connection.send(self.request("/-/files/big"))
        first, second = service.stopService(), service.stopService()
        self.machine.advance(GRACE / 2)
        self.assertNoResult(first)
        self.assertNoResult(second)
        self.assertEqual(len(connection.receive().body), BIG)
        connection.turn()
        self.over(first)
        self.successResultOf(second)

    def test_interrupted(self) -> None:
        """What is in flight can be broken, at once or when a stop waits for it already."""
        self.big()
        for stops_first in (False, True):
            self.machine = Machine()
            service = self.serving(self.made())
            connection = self.connect()
            connection.send(self.request("/-/files/big"))
            done = service.stopService() if stops_first else None
            self.over(service.interrupt())
            if done is not None:
                self.successResultOf(done)
            self.assertTrue(connection.aborted)

    def request(self, target: str) -> bytes:
        return f"GET {target} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode()

    def test_client_stops_it(self) -> None:
        """A client that may end the daemon ends the service, not the reactor, and not its parent."""
        parent = MultiService()
        service = self.made()
        service.setServiceParent(parent)
        parent.startService()
        self.machine.begin()
        self.assertEqual(self.get("/stop").body, b"stopping")
        self.machine.advance(0)
        self.over(service.stopService())
        self.assertEqual((service.running, parent.running), (False, True))
        self.assertEqual(self.machine.listening, set())
        self.assertFalse(self.machine.hasStopped)
        self.over(parent.stopService())

    def test_last_connection(self) -> None:
        """The last connection that is permitted ends the service when it is gone, and can be heard of."""
        ended = []
        settings = Settings(root=str(self.root), max_connections=1)
        prepared = prepare_settings(settings, os.environ, TOKEN)
        service = EmbeddedService(self.machine, prepared, ended=lambda: ended.append(True))
        self.serving(service)
        self.assertEqual(self.get("/-/files/hello.txt").status, 200)
        self.machine.advance(0)
        self.over(service.stopService())
        self.assertEqual(ended, [True])
