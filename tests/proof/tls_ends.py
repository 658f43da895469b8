"""Somebody who speaks TLS with a certificate of theirs: notes what a client says, and may pass it on."""

from __future__ import annotations

import select
import socket
import ssl
import threading
from contextlib import suppress
from pathlib import Path

from tests.proof.asking import any_certificate
from tests.proof.daemon import PATIENCE

_PIECE = 64 << 10


class TlsEnd:
    """Listens on 127.0.0.1 for the `with` block. What clients say inside TLS is in `heard`.

    With `passes_to` it passes everything on to the TLS server on that port, and back: a man in the middle.
    Without, it never answers.
    """

    def __init__(self, certificate: Path, passes_to: int | None = None) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate)
        self._passes_to = passes_to
        self._heard: list[bytes] = []
        #: Handshakes that came to their end, and those that did not.
        self.shaken = 0
        self.refused = 0
        self._done = threading.Condition()

    def __enter__(self) -> TlsEnd:
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listening.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()

    def heard(self, connections: int = 1) -> bytes:
        """All that was said inside TLS, when so many connections are over."""
        with self._done:
            self._done.wait_for(lambda: len(self._heard) >= connections, PATIENCE)
            return b"".join(self._heard)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                end, _ = self._listening.accept()
                threading.Thread(target=self._serve, args=(end,), daemon=True).start()

    def _serve(self, plain: socket.socket) -> None:
        plain.settimeout(PATIENCE)
        said = bytearray()
        try:
            with self._context.wrap_socket(plain, server_side=True) as client:
                self.shaken += 1
                self._listen(client, said)
        except OSError:
            self.refused += not said
        finally:
            with self._done:
                self._heard.append(bytes(said))
                self._done.notify_all()

    def _listen(self, client: ssl.SSLSocket, said: bytearray) -> None:
        if self._passes_to is None:
            while piece := client.recv(_PIECE):
                said += piece
            return
        plain = socket.create_connection(("127.0.0.1", self._passes_to), PATIENCE)
        with any_certificate().wrap_socket(plain, server_hostname="localhost") as server:
            while True:
                for source in select.select([client, server], [], [], PATIENCE)[0]:
                    piece = source.recv(_PIECE)
                    if not piece:
                        return
                    if source is client:
                        said += piece
                    (server if source is client else client).sendall(piece)
