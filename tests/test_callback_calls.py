"""One call to a target: what is dialled, what is sent, and what a hostile answer can do."""

from __future__ import annotations

from ipaddress import ip_address

import trustme
from twisted.internet.address import IPv4Address
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import Certificate
from twisted.internet.testing import MemoryReactorClock
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure
from twisted.test.iosim import FakeTransport, IOPump, connect
from twisted.trial.unittest import SynchronousTestCase

from fileexport.callback_calls import (
    CALL_TIME,
    CLOSE_TIME,
    DIAL_TIME,
    MAX_BODY,
    MAX_HEAD,
    MAX_SHOWN,
    Answer,
    Caller,
    CallFailed,
    is_local,
)
from fileexport.callback_targets import Asker, HostPort, Target, Targets
from fileexport.endpoints import TlsContext
from fileexport.errors import CallbackRefusedError, OverloadedError
from tests.callback_receivers import Names, Receiver

LOCAL = Asker.at("127.0.0.1", True)
GET = Target.from_url("http://127.0.0.1:9010/ping?id=A1B2C3")
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nfin"
FIN = Answer(200, "OK", "fin")
NOT_HTTP = "the answer is not HTTP/1, or its head is too long"
CLOSED = "the connection was closed without a whole answer"
CA = trustme.CA()


class CallCase(SynchronousTestCase):
    """A caller in memory."""

    def setUp(self) -> None:
        self.reactor = MemoryReactorClock()
        self.names = Names(localhost=("::1", "127.0.0.1"))
        self.targets = Targets(lambda: (), [HostPort("hook.example")], is_local)

    def call(self, target: Target = GET, **fields: str) -> Deferred[Answer]:
        """Begin a call by GET."""
        caller = Caller(self.reactor, self.targets, self.names)
        return Deferred.fromCoroutine(caller.call(target, LOCAL, fields))

    def accept(self, receiver: Protocol, index: int = -1) -> IOPump:
        """Accept what was dialled."""
        client = self.reactor.tcpClients[index][2].buildProtocol(IPv4Address("TCP", "127.0.0.1", 9010))
        there, here = FakeTransport(receiver, True), FakeTransport(client, False)
        pump: IOPump = connect(receiver, there, client, here, clock=self.reactor)
        return pump

    def fail_dial(self, index: int = -1) -> None:
        """Refuse what was dialled."""
        factory = self.reactor.tcpClients[index][2]
        factory.clientConnectionFailed(self.reactor.connectors[index], Failure(ConnectionRefusedError()))

    def dialled(self) -> list[tuple[str, int]]:
        """Address and port of everything that was dialled."""
        return [client[:2] for client in self.reactor.tcpClients]

    def reason(self, calling: Deferred[Answer]) -> str:
        """Why a call failed."""
        return str(self.failureResultOf(calling, CallFailed).value)


class RequestTests(CallCase):
    """What is dialled and sent."""

    def test_get(self) -> None:
        """A GET sends path and query as they were given, and nothing about the requester."""
        calling = self.call()
        receiver = Receiver(OK)
        self.accept(receiver)
        head, end = receiver.request.split(b"\r\n", 1)
        self.assertEqual(head, b"GET /ping?id=A1B2C3 HTTP/1.1")
        self.assertEqual(
            sorted(end.splitlines()),
            [b"", b"Connection: close", b"Host: 127.0.0.1:9010", b"User-Agent: fileexport"],
        )
        self.assertEqual(self.successResultOf(calling), FIN)
        self.assertEqual(self.dialled(), [("127.0.0.1", 9010)])

    def test_post(self) -> None:
        """A body is POSTed with its length and the fields that come with it."""
        fields = {"Content-Type": "application/json", "webhook-id": "msg_1"}
        caller = Caller(self.reactor, self.targets, self.names)
        calling = Deferred.fromCoroutine(caller.call(GET, LOCAL, fields, b'{"a": 1}'))
        receiver = Receiver(OK)
        self.accept(receiver)
        head, body = receiver.request.split(b"\r\n\r\n")
        self.assertEqual(body, b'{"a": 1}')
        for line in (b"Content-Length: 8", b"Content-Type: application/json", b"Webhook-Id: msg_1"):
            self.assertIn(line, head.splitlines())
        self.successResultOf(calling)

    def test_host_field(self) -> None:
        """The Host field names the host as the target does, in brackets where it is IPv6."""
        for url, host in (("http://hook.example/", b"hook.example"), ("http://[::1]:81/", b"[::1]:81")):
            self.names.table["hook.example"] = ["10.0.0.1"]
            calling = self.call(Target.from_url(url))
            receiver = Receiver(OK)
            self.accept(receiver)
            self.assertIn(b"Host: " + host, receiver.request.splitlines())
            self.successResultOf(calling)

    def test_next_address(self) -> None:
        """Where the first address of a name refuses, the next is dialled: a listener often has but one."""
        calling = self.call(Target.from_url("http://localhost:9010/"))
        self.fail_dial()
        self.accept(Receiver(OK))
        self.assertEqual(self.successResultOf(calling), FIN)
        self.assertEqual(self.dialled(), [("::1", 9010), ("127.0.0.1", 9010)])

    def test_silent_address(self) -> None:
        """An address that does not answer holds the next up for a moment only."""
        self.call(Target.from_url("http://localhost:9010/")).addErrback(lambda _: None)
        self.assertEqual([client[3] for client in self.reactor.tcpClients], [DIAL_TIME])
        self.fail_dial()
        self.assertEqual([client[3] for client in self.reactor.tcpClients], [DIAL_TIME, CALL_TIME])
        self.fail_dial()

    def test_nobody_there(self) -> None:
        """When no address can be reached the call fails."""
        calling = self.call()
        self.fail_dial()
        self.assertEqual(self.reason(calling), "connection refused")


class RefusalTests(CallCase):
    """Nothing is dialled unless every address passes, at the request and at the delivery."""

    def check(self, target: Target, asker: Asker = LOCAL) -> Deferred[None]:
        """Begin a check."""
        return Deferred.fromCoroutine(Caller(self.reactor, self.targets, self.names).check(target, asker))

    def test_refused(self) -> None:
        """A refused target gets one sentence, whether it is asked for or called, and no connection."""
        self.names.table["two.example"] = ["127.0.0.1", "169.254.169.254"]
        for url in ("http://two.example/", "http://169.254.169.254/", "http://8.8.8.8/", "https://10.0.0.1/"):
            target = Target.from_url(url)
            for deferred in (self.check(target), self.call(target)):
                error = self.failureResultOf(deferred, CallbackRefusedError).value
                self.assertEqual(str(error), "this callback target is not allowed")
        self.assertEqual(self.dialled(), [])
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_allowed(self) -> None:
        """A check of an allowed target succeeds and dials nothing."""
        self.successResultOf(self.check(Target.from_url("http://localhost:9010/")))
        self.assertEqual(self.dialled(), [])

    def test_rebinding(self) -> None:
        """A name that was good at the request and points elsewhere at the delivery is not dialled."""
        target = Target.from_url("http://rebound.example/")
        self.names.table["rebound.example"] = ["127.0.0.1"]
        self.successResultOf(self.check(target))
        self.names.table["rebound.example"] = ["10.0.0.1"]
        self.failureResultOf(self.call(target), CallbackRefusedError)
        self.assertEqual(self.dialled(), [])

    def test_dials_what_was_checked(self) -> None:
        """The name is not resolved again between the check of its addresses and the dialling."""
        self.names.table["once.example"] = ["127.0.0.1"]
        calling = self.call(Target.from_url("http://once.example/"))
        self.names.table["once.example"] = ["10.0.0.1"]
        self.accept(Receiver(OK))
        self.successResultOf(calling)
        self.assertEqual(self.dialled(), [("127.0.0.1", 80)])

    def test_unknown_name(self) -> None:
        """A name without an address is refused at the request, and a failure at the delivery."""
        self.names.table["nobody.example"] = []
        target = Target.from_url("http://nobody.example/")
        self.failureResultOf(self.check(target), CallbackRefusedError)
        self.assertEqual(self.reason(self.call(target)), "the name has no address")

    def test_slow_name(self) -> None:
        """A name that is not found in time is refused; when it is found at last, nothing happens."""
        checking = self.check(Target.from_url("http://slow.example/"))
        calling = self.call(Target.from_url("http://slow.example/"))
        self.reactor.advance(CALL_TIME)
        self.failureResultOf(checking, CallbackRefusedError)
        self.assertEqual(self.reason(calling), "no answer in time")
        self.names.answer("127.0.0.1")
        self.names.answer()
        self.assertEqual(self.dialled(), [])

    def test_literal(self) -> None:
        """An address is not looked up: whoever looks names up may be busy."""
        for url in ("http://127.0.0.1:9010/", "http://[::1]:9010/"):
            self.successResultOf(self.check(Target.from_url(url)))
            self.call(Target.from_url(url)).addErrback(lambda _: None)
            self.fail_dial()
        self.assertEqual(self.names.asked, [])

    def test_too_many_names(self) -> None:
        """When no more names can be looked up, the request and the delivery fail with just that."""
        self.names.refuses = True
        target = Target.from_url("http://localhost:9010/")
        for deferred in (self.check(target), self.call(target)):
            self.failureResultOf(deferred, OverloadedError)
        self.assertEqual(self.dialled(), [])


class AnswerTests(CallCase):
    """What an answer can be, and do."""

    def test_answers(self) -> None:
        """Status, reason, first line of the body and Retry-After come out, printable."""
        for raw, answer in (
            (b"200 OK\r\n\r\nfirst\nsecond", Answer(200, "OK", "first")),
            (
                b"200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n",
                Answer(200, "OK", "abc"),
            ),
            (b"204 No Content\r\n\r\n", Answer(204, "No Content", "")),
            (b"201\r\n\r\n", Answer(201, "", "")),
            (b"200 \x1b[2J\r\n\r\n\x1b]0;x\x07\x00", Answer(200, "\ufffd[2J", "\ufffd]0;x\ufffd\ufffd")),
            (b"200 a\rb\r\n\r\nc\rd", Answer(200, "a", "c")),
            (b"200 \xff\xe2\x80\xae\r\n\r\n\xc3\xa9", Answer(200, "\ufffd\ufffd", "é")),
            (b"200 OK\r\n\r\n" + b"x" * 999, Answer(200, "OK", "x" * MAX_SHOWN)),
            (b"200 OK\r\n\r\n{answer}{0}%s", Answer(200, "OK", "{answer}{0}%s")),
            (b"200 OK\r\nContent-Length: 99\r\n\r\ncut off", Answer(200, "OK", "cut off")),
            (b"302 Found\r\nLocation: http://10.0.0.1/\r\n\r\n", Answer(302, "Found", "")),
            (b"503 Busy\r\nRetry-After: 120\r\n\r\nlater", Answer(503, "Busy", "later", "120")),
            (b"503 Busy\r\nRetry-After: " + b"9" * 99 + b"\r\n\r\n", Answer(503, "Busy", "", "9" * 64)),
            (b"999 What\r\n\r\n", Answer(999, "What", "")),
        ):
            calling = self.call()
            self.accept(Receiver(b"HTTP/1.1 " + raw, close=True))
            self.assertEqual(self.successResultOf(calling), answer)
        self.assertEqual(len(set(self.dialled())), 1)

    def test_byte_by_byte(self) -> None:
        """An answer that comes byte by byte is the same."""
        calling = self.call()
        receiver = Receiver()
        pump = self.accept(receiver)
        for byte in b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.0 200 OK\r\n\r\nfin":
            receiver.say(bytes([byte]))
            pump.flush()
        receiver.hang_up()
        pump.flush()
        self.assertEqual(self.successResultOf(calling), FIN)

    def test_garbage(self) -> None:
        """What is no answer by HTTP/1 is a failure in a few words."""
        for raw, reason in (
            (b"", CLOSED),
            (b"HTTP/1.1 200", CLOSED),
            (b"HTTP/1.1 200 OK\r\nA: b", CLOSED),
            (b"SSH-2.0-OpenSSH_9.6\r\n", NOT_HTTP),
            (b"HTTP/2.0 200 OK\r\n\r\n", NOT_HTTP),
            (b"HTTP/1.1 0200 OK\r\n\r\n", NOT_HTTP),
            (b"HTTP/1.1 -20 OK\r\n\r\n", NOT_HTTP),
            (b"HTTP/1.1 2000 OK\r\n\r\n", NOT_HTTP),
            (b"HTTP/1.10 100 OK\r\n\r\n", NOT_HTTP),
            (b"\x15\x03\x01\x00\x02\x02\x46 a TLS alert", NOT_HTTP),
            (b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n", "the answer is not HTTP/1"),
            (b"HTTP/1.1 200 OK\r\n folded\r\n\r\n", "the answer is not HTTP/1"),
            (b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", "the answer is not HTTP/1"),
            (
                b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
                "the answer is not HTTP/1",
            ),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", "the answer is not HTTP/1"),
        ):
            calling = self.call()
            self.accept(Receiver(raw, close=True))
            self.assertEqual(self.reason(calling), reason, raw)

    def test_endless_head(self) -> None:
        """A head without end is cut off, however it is made."""
        for raw in (
            b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * MAX_HEAD,
            b"HTTP/1.1 200 OK\r\nA: " + b"b" * 2 * MAX_HEAD,
            b"HTTP/1.1 200 OK\r\nA: b\r\n" + b" c\r\n" * MAX_HEAD,
            b"HTTP/1.1 1" + b"0" * 2 * MAX_HEAD,
        ):
            calling = self.call()
            receiver = Receiver(raw)
            self.accept(receiver)
            self.failureResultOf(calling, CallFailed)
            self.assertEqual(receiver.lost, 1)

    def test_interim_flood(self) -> None:
        """Interim answers are passed over up to a bound, and none of them reaches the log."""
        interim = b"HTTP/1.1 100 Continue\r\n\r\n"
        calling = self.call()
        self.accept(Receiver(interim * 3 + OK))
        self.assertEqual(self.successResultOf(calling), FIN)
        calling = self.call()
        receiver = Receiver(interim * 10_000)
        self.accept(receiver)
        self.assertEqual((self.reason(calling), receiver.lost), (NOT_HTTP, 1))

    def test_endless_body(self) -> None:
        """Of a body without end the beginning is read, and the connection is cut at once."""
        calling = self.call()
        receiver = Receiver(b"HTTP/1.1 200 OK\r\n\r\nfin\n", b"x" * MAX_BODY)
        self.accept(receiver)
        self.assertEqual(self.successResultOf(calling), FIN)
        self.assertEqual(receiver.lost, 1)

    def test_silence(self) -> None:
        """Ten seconds after the first step the call has failed, and the connection is cut."""
        calling = self.call()
        receiver = Receiver(b"HTTP/1.1 200 OK\r\n")
        pump = self.accept(receiver)
        self.reactor.advance(CALL_TIME - 0.1)
        receiver.say(b"A: b\r\n")  # does not win a second
        pump.flush()
        self.assertNoResult(calling)
        self.reactor.advance(0.1)
        self.assertEqual(self.reason(calling), "no answer in time")
        pump.flush()
        self.assertEqual(receiver.lost, 1)

    def test_black_hole(self) -> None:
        """A target that never takes the connection fails after ten seconds, too."""
        calling = self.call()
        self.reactor.advance(CALL_TIME)
        self.assertEqual(self.reason(calling), "no answer in time")
        self.assertTrue(self.reactor.connectors[-1].stoppedConnecting)

    def test_slow_body(self) -> None:
        """An answer whose body does not end in time counts with what came of it."""
        calling = self.call()
        receiver = Receiver(b"HTTP/1.1 200 OK\r\n\r\nfin")
        pump = self.accept(receiver)
        self.assertNoResult(calling)
        self.reactor.advance(CALL_TIME)
        self.assertEqual(self.successResultOf(calling), FIN)
        pump.flush()
        self.assertEqual(receiver.lost, 1)

    def test_no_farewell(self) -> None:
        """After a whole answer the other side has a second to close its end, and then it is cut off."""
        calling = self.call()
        receiver = Receiver()
        pump = self.accept(receiver)
        receiver.say(OK)
        pump.pump()
        self.reactor.advance(CLOSE_TIME - 0.1)
        self.assertNoResult(calling)
        self.reactor.advance(0.1)
        self.assertEqual(self.successResultOf(calling), FIN)
        pump.flush()
        self.assertEqual(receiver.lost, 1)

    def test_cancel(self) -> None:
        """A call that is cancelled closes its connection, or does not open it."""
        calling = self.call()
        receiver = Receiver()
        pump = self.accept(receiver)
        calling.cancel()
        self.failureResultOf(calling, CancelledError)
        pump.flush()
        self.assertEqual(receiver.lost, 1)
        calling = self.call()
        calling.cancel()
        self.failureResultOf(calling, CancelledError)
        self.assertTrue(self.reactor.connectors[-1].stoppedConnecting)

    def tearDown(self) -> None:
        """Whatever the other side did, nothing is left behind and no failure went to the log."""
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.assertEqual(self.flushLoggedErrors(), [])


class TlsTests(CallCase):
    """Targets of https."""

    def setUp(self) -> None:
        super().setUp()
        self.names.table["hook.example"] = ["10.0.0.1"]

    def post(
        self, certified: str, url: str = "https://hook.example/x", *, tls: bool = True
    ) -> Deferred[Answer]:
        """Call a receiver whose certificate is for `certified`."""
        trust = Certificate.loadPEM(CA.cert_pem.bytes())
        targets = Targets(lambda: (), [HostPort("hook.example"), HostPort(ip_address("10.0.0.1"))], is_local)
        caller = Caller(self.reactor, targets, self.names, trust)
        calling = Deferred.fromCoroutine(caller.call(Target.from_url(url), LOCAL, {}, b"{}"))
        self.receiver = Receiver(OK)
        protocol: Protocol = self.receiver
        if tls:
            pem = CA.issue_cert(certified).private_key_and_cert_chain_pem.bytes().decode("ascii")
            inner = Factory.forProtocol(lambda: self.receiver)
            factory = TLSMemoryBIOFactory(TlsContext(pem), False, inner, clock=self.reactor)
            protocol = factory.buildProtocol(None)
        pump = self.accept(protocol)
        if not tls:
            self.receiver.say(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            pump.flush()
        return calling

    def test_verified(self) -> None:
        """The certificate must be for the host of the URL, a name or an address, whatever is dialled."""
        self.assertEqual(self.successResultOf(self.post("hook.example")), FIN)
        self.assertEqual(self.dialled(), [("10.0.0.1", 443)])
        self.assertTrue(self.receiver.request.startswith(b"POST /x HTTP/1.1\r\n"))
        self.assertEqual(self.successResultOf(self.post("10.0.0.1", "https://10.0.0.1/")), FIN)

    def test_not_verified(self) -> None:
        """A certificate for another host, and a receiver without TLS, get no byte of the request."""
        for certified, tls in (("other.example", True), ("10.0.0.1", True), ("", False)):
            calling = self.post(certified, tls=tls)
            self.assertEqual(self.reason(calling), "no TLS, or its certificate is not accepted", certified)
            self.assertNotIn(b"POST", self.receiver.request)
