"""One open port for both protocols: `curl` and `fileexport` at the same address, plain and with TLS."""

from __future__ import annotations

import shutil
import socket
import threading
from collections.abc import Callable, Sequence

import trustme

from fileexport.keys import pin_of
from tests.proof.asking import curl
from tests.proof.counts import SOAK, Tally
from tests.proof.daemon import PATIENCE, Daemon
from tests.proof.process import MIB
from tests.proof.transfer_case import TransferCase, content

#: Clients of each protocol at a time, and exchanges of each.
CLIENTS, EXCHANGES = (50, 40) if SOAK else (8, 5)
SIZE = 8 * MIB
EXCHANGED = Tally("exchanges on a shared port")


class SharedPortTests(TransferCase):
    """Daemons with `--transfer shared`."""

    def setUp(self) -> None:
        super().setUp()
        (self.root / "large").write_bytes(content("large", SIZE))
        (self.root / "hello.txt").write_text("hello\n")

    def shared(self, *options: str) -> tuple[Daemon, int]:
        """A daemon, and its only port."""
        daemon = self.daemon(*options, listener="shared")
        port = daemon.transfer_port
        self.assertIn(f":{port}/", daemon.url)
        self.addCleanup(lambda: self.assertNotIn("Traceback", daemon.output))
        return daemon, port

    def get(self, *words: str) -> bytes:
        """What curl prints, which must succeed."""
        done = curl("--fail", "-H", f"Authorization: Bearer {self.token}", *words)
        self.assertEqual((done.returncode, done.stderr), (0, b""))
        return done.stdout

    def exchange(self, daemon: Daemon, port: int, more: Sequence[str], **variables: str) -> None:
        """Both clients read and write by turns, and each sees what the other has done."""
        environ = self.environ(port, **variables)
        self.assertEqual(self.get(*more, daemon.url + "hello.txt"), b"hello\n")
        listed = self.command(environ, "list")
        self.assertEqual((listed.returncode, listed.stdout, listed.stderr), (0, "hello.txt\nlarge\n", ""))
        self.assertEqual(self.get(*more, daemon.url + "large"), content("large", SIZE))
        target = self.base / "got"
        target.mkdir()
        self.assertEqual(self.command(environ, "download", "/large", target).returncode, 0)
        self.assert_content(target / "large", "large", SIZE)
        shutil.rmtree(target)
        source = self.source("new", MIB)
        self.assertEqual(self.command(environ, "upload", source, "/").returncode, 0)
        self.assertEqual(self.get(*more, daemon.url + "new"), content("new", MIB))
        self.get(*more, "-X", "POST", f"{daemon.url}delete?dir=/&name=new")
        self.assertEqual(self.command(environ, "list").stdout, "hello.txt\nlarge\n")
        EXCHANGED.add(4, "curl")
        EXCHANGED.add(4, "fileexport")

    def test_plain(self) -> None:
        """`curl` and `fileexport` on one port; a silent connection does not hold up a stop."""
        daemon, port = self.shared()
        self.exchange(daemon, port, ())
        with socket.create_connection(("127.0.0.1", port)):
            self.assertEqual(daemon.stop(), 0)

    def test_tls(self) -> None:
        """The same under TLS: ALPN names the protocol, and where curl leaves it out the first byte does."""
        authority = trustme.CA()
        ca_file = self.write("ca.pem", authority.cert_pem.bytes())
        made = authority.issue_cert("localhost", "127.0.0.1").private_key_and_cert_chain_pem.bytes()
        key = self.write("key.pem", made, 0o600)
        daemon, port = self.shared("--private-key", str(key))
        pin = pin_of(key.read_text())
        for more in ((), ("--no-alpn",)):
            self.exchange(daemon, port, ("--cacert", str(ca_file), *more), FILEEXPORT_PUBLIC_KEY=pin)
        self.assertEqual(daemon.stop(), 0)

    def test_many(self) -> None:
        """Many clients of both kinds at once each get their own, whole."""
        daemon, port = self.shared()
        wrong: list[object] = []

        def by_http() -> None:
            for _ in range(EXCHANGES):
                if self.get(daemon.url + "large") != content("large", SIZE):
                    wrong.append("curl")
                EXCHANGED.add(1, "curl")

        def by_transfer() -> None:
            for _ in range(EXCHANGES):
                with self.client(port) as client:
                    if b"".join(client.read("/large")) != content("large", SIZE):
                        wrong.append("Client")
                EXCHANGED.add(1, "Client")

        self.together([by_http, by_transfer] * CLIENTS, wrong)
        self.assertEqual(wrong, [])

    def together(self, works: Sequence[Callable[[], None]], wrong: list[object]) -> None:
        """Do all of it at once; what is raised is put to what went wrong."""

        def guarded(work: Callable[[], None]) -> None:
            try:
                work()
            except BaseException as error:
                wrong.append(error)

        threads = [threading.Thread(target=guarded, args=(work,), daemon=True) for work in works]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE * 4)
            if thread.is_alive():
                wrong.append("a client that does not end")
