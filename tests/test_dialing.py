"""How an `AsyncClient` comes to its connection, or does not, and who gets a place on it."""

from __future__ import annotations

from typing import Any

from twisted.internet.address import HostnameAddress, IPv4Address, UNIXAddress
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.error import ConnectionRefusedError as Refused
from twisted.internet.error import DNSLookupError
from twisted.internet.error import TimeoutError as TimedOut
from twisted.internet.interfaces import IProtocolFactory, IStreamClientEndpoint
from zope.interface import implementer

from fileexport.client.deferred.client import AsyncClient
from fileexport.errors import AuthenticationError
from fileexport.paths import RelPath
from fileexport.wire import messages as m
from tests.link_case import TOKEN, LinkCase
from tests.test_link import ROW


class Strange(Exception):
    """Of an endpoint of somebody's own."""


@implementer(IStreamClientEndpoint)
class Odd:
    """An endpoint that gives something of its own."""

    def __init__(self, makes: bool, gives: object) -> None:
        self.makes = makes
        self.gives = gives

    def connect(self, factory: IProtocolFactory) -> Deferred[Any]:
        """Connect, or not."""
        if self.makes:
            return succeed(factory.buildProtocol(UNIXAddress(b"/run/socket")))
        return succeed(self.gives)


class ConnectingTests(LinkCase):
    """How a connection comes about, or does not."""

    def test_failures(self) -> None:
        """What an endpoint fails with is the exception that `Client` raises, for all who wait."""
        failures: tuple[tuple[Exception, type[Exception]], ...] = (
            (Refused(), ConnectionRefusedError),
            (TimedOut(), TimeoutError),
            (DNSLookupError("no such name"), ConnectionError),
            (PermissionError(13, "not allowed"), ConnectionError),
            (Strange("of its own"), ConnectionError),
        )
        for error, kind in failures:
            self.endpoint.error = error
            for one in (self.client.stat("/"), self.client.list_files("/")):
                found = self.failureResultOf(one, kind)
                self.assertIn("localhost port 6768", str(found.value))
        self.endpoint.error = None
        asked = self.client.stat("/")
        self.turn()
        self.waits(asked)
        self.assertEqual(len(self.far.opened()), 1)

    def test_too_slow(self) -> None:
        """Who waits too long gets TimeoutError; when nobody waits any more, connecting ends."""
        self.endpoint.is_slow = True
        patient, hasty = self.client.stat("/", timeout=20_000), self.client.stat("/", timeout=5_000)
        self.clock.advance(5)
        self.failureResultOf(hasty, TimeoutError)
        self.waits(patient)
        self.assertEqual(self.endpoint.cancelled, 0)
        self.clock.advance(15)
        self.failureResultOf(patient, TimeoutError)
        self.assertEqual(self.endpoint.cancelled, 1)

    def test_own_time(self) -> None:
        """The time of a call holds while connecting, whatever the client's or another one's is."""
        self.endpoint.is_slow = True
        client = self.make(timeout=1_000)
        hasty, patient = client.stat("/"), client.stat("/", timeout=30_000)
        self.clock.advance(1)
        self.failureResultOf(hasty, TimeoutError)
        self.waits(patient)
        self.endpoint.is_slow = False
        self.clock.advance(29)
        self.failureResultOf(patient, TimeoutError)

    def test_connecting_anew(self) -> None:
        """Those who come while connecting takes too long get another try when those before them give up."""
        self.endpoint.is_slow = True
        early = self.client.stat("/", timeout=5_000)
        self.clock.advance(4)
        late = self.client.stat("/", timeout=5_000)
        self.endpoint.is_slow = False
        self.clock.advance(1)
        self.failureResultOf(early, TimeoutError)
        self.turn()
        self.waits(late)
        self.assertEqual(len(self.far.opened()), 1)

    def test_silent_server(self) -> None:
        """A server that does not greet is left when the time is over."""
        client = self.make(timeout=3_000)
        asked = client.stat("/")
        self.far.answers = False
        self.clock.advance(3)
        self.failureResultOf(asked, TimeoutError)
        self.assertTrue(self.far.transport.aborted)

    def test_other_machines(self) -> None:
        """Plain text goes to this machine only, unless that was allowed; a name is not asked, the peer is."""
        there = IPv4Address("TCP", "192.0.2.1", 6768)
        self.endpoint.peer = there
        self.failureResultOf(self.client.stat("/"), ValueError)
        self.assertEqual(self.far.transport.value(), b"")
        weak = self.make("not-long-enough", tls=False)
        self.failureResultOf(weak.stat("/"), ValueError)
        self.assertEqual(self.far.transport.value(), b"")
        for peer, tls in ((there, False), (UNIXAddress(b"/run/socket"), None)):
            self.endpoint.peer = peer
            asked = self.make(tls=tls).stat("/")
            self.turn()
            self.waits(asked)
            self.assertEqual(len(self.far.opened()), 1)

    def test_no_token(self) -> None:
        """Without a token nothing is said."""
        error = self.failureResultOf(self.make(None).stat("/"), AuthenticationError)
        self.assertIn("a token is needed", str(error.value))

    def test_proxy(self) -> None:
        """An address of this machine is no server of this machine where the hostname names another one."""
        for hostname in ("server.example.com", "192.0.2.1"):
            refused = AsyncClient(hostname, 6768, TOKEN, endpoint=self.endpoint, reactor=self.clock)
            error = self.failureResultOf(refused.stat("/"), ValueError)
            self.assertIn("tls=False allows plain text", str(error.value))
            self.assertEqual(self.far.transport.value(), b"")
        for hostname, tls in (("server.example.com", False), ("LOCALHOST", None), ("::1", None)):
            client = AsyncClient(hostname, 6768, TOKEN, endpoint=self.endpoint, reactor=self.clock, tls=tls)
            asked = client.stat("/")
            self.turn()
            self.waits(asked)
            self.assertEqual(len(self.far.opened()), 1)

    def test_weak_token(self) -> None:
        """A weak token is proved in plain text to nobody who may be another machine."""
        self.endpoint.peer = HostnameAddress(b"localhost", 6768)
        weak = self.make("not-long-enough", tls=False)
        self.failureResultOf(weak.stat("/"), ValueError)
        self.assertEqual(self.far.transport.value(), b"")

    def test_no_name(self) -> None:
        """What cannot be a host's name is a ConnectionError that says so, and the client can close."""
        for hostname in ("a..b", "x" * 64):
            for endpoint in (None, self.endpoint):
                tls = endpoint is not None
                client = AsyncClient(hostname, 6768, TOKEN, endpoint=endpoint, reactor=self.clock, tls=tls)
                error = self.failureResultOf(client.stat("/"), ConnectionError)
                self.assertEqual(str(error.value), f"{hostname}: not a host name")
                self.successResultOf(client.close())

    def test_bad_endpoints(self) -> None:
        """Endpoints that make no connection are a ConnectionError, and the client can close."""
        for endpoint in (Odd(False, None), Odd(False, object()), Odd(True, None)):
            client = AsyncClient("localhost", 6768, TOKEN, endpoint=endpoint, reactor=self.clock)
            error = self.failureResultOf(client.stat("/"), ConnectionError)
            self.assertIn("the endpoint made no connection", str(error.value))
            self.successResultOf(client.close())
        nothing: Any = object()
        with self.assertRaises(TypeError):
            AsyncClient("localhost", 6768, TOKEN, endpoint=nothing, reactor=self.clock)


class PlaceTests(LinkCase):
    """Who waits for a place."""

    def looked_at(self, path: str) -> Deferred[list[str]]:
        """A listing, each of whose entries is looked at before the next is taken."""

        async def look() -> list[str]:
            return [(await self.client.stat(f"/{one.path}")).path async for one in self.client.entries(path)]

        return Deferred.fromCoroutine(look())

    def test_ended(self) -> None:
        """What the server has ended holds no place, though its answers were not taken yet."""
        self.endpoint.streams = 1
        looked = self.looked_at("/")
        self.turn()
        self.far.say(m.Entries([ROW, ROW]), 1)
        self.far.say(m.End(), 1)
        for stream in (2, 3):
            self.turn()
            self.far.say(m.Entries([ROW]), stream)
            self.far.say(m.End(), stream)
        self.assertEqual(self.successResultOf(looked), ["/a", "/a"])

    def test_all_wait(self) -> None:
        """Where all who have places wait for others to leave, these fail when their time is over."""
        self.endpoint.streams = 2
        looked = [self.looked_at(path) for path in ("/0", "/1")]
        self.turn()
        for stream in (1, 2):
            self.far.say(m.Entries([ROW]), stream)
        self.clock.advance(59)
        self.waits(*looked)
        self.clock.advance(1)
        for one in looked:
            error = self.failureResultOf(one, TimeoutError)
            self.assertIn("none of those under way went on for 60 s", str(error.value))
        self.addCleanup(self.flushLoggedErrors)

    def test_others_go_on(self) -> None:
        """Who waits for others waits as long as these go on, however short the time is."""
        self.endpoint.streams = 1
        first, second = self.client.list_files("/"), self.client.stat("/", timeout=5_000)
        self.turn()
        for number in range(20):
            self.clock.advance(4)
            self.far.say(m.Entries([m.Entry(RelPath((str(number),)), "file", 1, 1)]), 1)
        self.waits(second)
        self.far.say(m.End(), 1)
        self.assertEqual(len(self.successResultOf(first)), 20)
        self.turn()
        self.assertEqual(len(self.far.opened()), 2)


class CloseTests(LinkCase):
    """What `close` ends."""

    def test_called_again_at_once(self) -> None:
        """What is begun by somebody who is told of the end is not ended, but connects again."""
        begun: list[Deferred[Any]] = []
        first = self.client.stat("/0")
        self.turn()
        first.addErrback(lambda _: begun.append(self.client.stat("/1")))
        self.client.close()
        self.turn()
        self.waits(*begun)
        self.assertEqual(len(self.endpoint.fars), 2)
        self.assertEqual([str(one.path) for one in self.far.messages(m.Stat)], ["/1"])

    def test_called_while_it_ends(self) -> None:
        """The same where it is begun after the call of `close`, which waits for threads."""
        self.endpoint.is_slow = True
        old = self.client.stat("/0")
        parting = self.client._board.part()
        self.endpoint.is_slow = False
        new = self.client.stat("/1")
        Deferred.fromCoroutine(self.client._board.close(parting))
        self.failureResultOf(old, CancelledError)
        self.turn()
        self.waits(new)
        self.assertEqual([str(one.path) for one in self.far.messages(m.Stat)], ["/1"])
