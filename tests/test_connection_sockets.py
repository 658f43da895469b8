"""Connections on real sockets: large files past Python and around TLS, and closing while the peer sends."""

from __future__ import annotations

import os
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from random import Random

from twisted.internet import reactor
from twisted.internet.defer import Deferred, succeed
from twisted.internet.endpoints import clientFromString, connectProtocol, wrapClientTLS
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.ssl import CertificateOptions
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from fileexport.disk.sender import Valve, send_span
from fileexport.endpoints import TlsContext
from fileexport.listening import default_listener
from fileexport.web.request import Request
from fileexport.web.site import Site
from tests.http_client import NOW, encode
from tests.test_endpoints import pem_for
from tests.test_listening import gate

#: More than any buffer on the way holds.
LARGE = Random(0).randbytes(3_000_000)
SMALL = b"a small file"


class Client(Protocol):
    """Sends all at once, and fires `answers` with all that came when the server has closed."""

    def __init__(self, request: bytes) -> None:
        self._request = request
        self._received: list[bytes] = []
        self.answers: Deferred[bytes] = Deferred()

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(self._request)

    def dataReceived(self, data: bytes) -> None:
        self._received.append(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.answers.callback(b"".join(self._received))


class SocketTests(TestCase):
    """A site on loopback whose paths are the files of a directory."""

    timeout = 60

    def setUp(self) -> None:
        self.root = Path(self.mktemp())
        self.root.mkdir()
        (self.root / "large").write_bytes(LARGE)
        (self.root / "small").write_bytes(SMALL)
        self.site = Site(reactor, self.serve, record=lambda request: None, now=lambda: NOW)
        self.addCleanup(self.all_gone)
        self.direct = 0
        real = os.sendfile

        def counted(*arguments: int) -> int:
            sent = real(*arguments)
            self.direct += sent
            return sent

        self.patch(os, "sendfile", counted)

    async def serve(self, request: Request) -> None:
        """Answer with a file; with 413 where the body is too long."""
        if request.oversized:
            return request.answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, b"too long", b"text/plain")
        with (self.root / os.fsdecode(request.path[1:])).open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            request.begin(HTTPStatus.OK, ((b"Content-Length", b"%d" % size),))
            if request.method == b"GET":
                with Valve(request, reactor, request.notifyFinish(), lender=request) as valve:
                    await send_span(valve, file.fileno(), 0, size)
        request.end()

    def all_gone(self) -> Deferred[None]:
        """Wait until every connection is lost on the server's side."""
        if not self.site.open:
            return succeed(None)
        return deferLater(reactor, 0.01).addCallback(lambda _: self.all_gone())

    async def ask(self, request: bytes, key: TlsContext | None = None) -> bytes:
        """All that comes back on one connection."""
        listener = default_listener(reactor, 0, private_key_context=key)
        await listener.listen(self.site, gate())
        self.addCleanup(lambda: Deferred.fromCoroutine(listener.stop()))
        endpoint = clientFromString(reactor, "tcp:" + listener.addresses[0])
        if key is not None:
            endpoint = wrapClientTLS(CertificateOptions(), endpoint)
        client: Client = await connectProtocol(endpoint, Client(request))
        return await client.answers

    async def check_order(self, key: TlsContext | None) -> None:
        """Large and small files come whole and in the order of their requests."""
        requests = b"".join(
            (
                encode("GET", "/large", {}, b""),
                encode("GET", "/small", {}, b""),
                encode("HEAD", "/large", {}, b""),
                encode("GET", "/large", {}, b"x" * 1000),
                encode("GET", "/large", {}, b""),
                encode("GET", "/small", {"Connection": "close"}, b""),
            )
        )
        found = list(answers(await self.ask(requests, key), heads={2}))
        expected = (LARGE, SMALL, b"", LARGE, LARGE, SMALL)
        self.assertEqual([status for status, _ in found], [200] * len(expected))
        for number, (_, body) in enumerate(found):
            self.assertTrue(body == expected[number], f"answer {number}: {len(body)} bytes")

    async def test_plain(self) -> None:
        """Without TLS the kernel copies what is large, and every answer stays in its place."""
        await self.check_order(None)
        self.assertEqual(self.direct, 3 * len(LARGE))

    async def test_tls(self) -> None:
        """Under TLS it is the same, and nothing goes past the encryption."""
        await self.check_order(TlsContext(pem_for()))
        self.assertEqual(self.direct, 0)

    async def test_answer_before_the_body(self) -> None:
        """A client that sends a body which is refused reads the answer, though it goes on sending."""
        body = b"x" * 2_000_000
        for key in (None, TlsContext(pem_for())):
            found = list(answers(await self.ask(encode("POST", "/small", {}, body), key)))
            self.assertEqual([status for status, _ in found], [413])

    async def test_answer_before_the_head(self) -> None:
        """So does one whose head has no end."""
        found = list(answers(await self.ask(b"GET /" + b"x" * 2_000_000)))
        self.assertEqual([status for status, _ in found], [414])


def answers(data: bytes, heads: frozenset[int] | set[int] = frozenset()) -> Iterator[tuple[int, bytes]]:
    """Status and body of each answer; those of the numbers in `heads` have no body."""
    number = 0
    while data:
        head, _, data = data.partition(b"\r\n\r\n")
        length = 0
        for line in head.split(b"\r\n"):
            if line.lower().startswith(b"content-length:") and number not in heads:
                length = int(line.partition(b":")[2])
        yield int(head[9:12]), data[:length]
        data = data[length:]
        number += 1
