"""`AsyncClient` and TLS."""

from __future__ import annotations

import ssl
from typing import Any

import trustme
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.ssl import CertificateOptions
from twisted.protocols.policies import WrappingFactory
from twisted.protocols.tls import TLSMemoryBIOFactory
from zope.interface import implementer

from fileexport.client.deferred.client import AsyncClient
from fileexport.keys import generate_keys
from fileexport.testing import serving
from fileexport.wire import messages as m
from tests.async_case import SCRIPTED, TOKEN, AsyncCase
from tests.client_server import Peer, ServerOptions, answering


class SecurityTests(AsyncCase):
    """TLS; whom it believes is proved against real daemons."""

    def list_(self, client: AsyncClient) -> object:
        """What a listing returns or raises."""

        async def look() -> object:
            try:
                return await client.list_files("/")
            except Exception as error:
                return error

        return self.run_(look)

    def test_client_certificate(self) -> None:
        """A client certificate is shown where the server wants one."""
        authority = trustme.CA()
        shown, file = self.here / "client.pem", self.here / "server.pem"
        authority.issue_cert("ada@example.com").private_key_and_cert_chain_pem.write_to_path(str(shown))
        pin, pem = generate_keys()
        file.write_text(pem)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        context.verify_mode = ssl.CERT_REQUIRED
        authority.configure_trust(context)
        der = ssl.PEM_cert_to_DER_cert(pem[pem.index("-----BEGIN CERTIFICATE") :])
        options: ServerOptions = {"tls": context, "certificate": der}
        client = self.scripted(answering(m.End()), options=options, public_key=pin, client_certificate=shown)
        self.assertEqual(self.list_(client), {})
        without = self.connected(self.server.port, SCRIPTED, public_key=pin)
        self.assertIsInstance(self.list_(without), ConnectionError)

    def test_wrapped(self) -> None:
        """An endpoint's TLS may reach us through protocols that do not tell that it stands."""
        server = self.enterContext(serving(self.root, tokens=f"{TOKEN}\n", tls=True))
        reactor = self.thread.reactor

        @implementer(IStreamClientEndpoint)
        class Wrapped:
            def connect(self, factory: Any) -> Deferred[Any]:
                outer = TLSMemoryBIOFactory(
                    CertificateOptions(), True, WrappingFactory(factory), clock=reactor
                )
                return TCP4ClientEndpoint(reactor, "127.0.0.1", server.port).connect(outer)

        self.assertEqual(self.list_(self.connected(1, TOKEN, endpoint=Wrapped())), {})

    def test_no_tls_there(self) -> None:
        """A server that speaks no TLS is a ConnectionError."""

        def script(peer: Peer) -> None:
            peer.raw(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        client = self.scripted(script, options={"raw": True}, tls=True)
        self.assertIsInstance(self.list_(client), ConnectionError)

    def test_files(self) -> None:
        """A certificate file that is missing, or none, is a ValueError that names it; nobody is asked."""
        bad = self.here / "bad.pem"
        bad.write_text("no certificate")
        self.scripted(answering(m.End()))
        for file in (self.here / "none.pem", bad, self.here):
            for name in ("ca_file", "client_certificate"):
                client = self.connected(self.server.port, SCRIPTED, **{name: file})
                error = self.list_(client)
                self.assertIsInstance(error, ValueError)
                self.assertIn(str(file), str(error))
        self.assertEqual(self.server.connections, 0)
