"""docs/examples: each file is on a page and run by a test; those of docs/embedding.md run here."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from fileexport import Client, generate_keys
from fileexport.testing import serving, token
from tests.test_docs import CHECKOUT, page

EXAMPLES = CHECKOUT / "docs" / "examples"
#: Lines of Python that a page may have beside the files: to show a name, not a program.
SHORT = 6


def blocks(text: str, language: str) -> Iterator[str]:
    """The blocks of a page in one language."""
    yield from re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def examples() -> list[Path]:
    """The programs of the manual."""
    return [*EXAMPLES.glob("*.py"), *EXAMPLES.glob("*.js")]


class PageTests(SynchronousTestCase):
    """Examples and pages."""

    def test_all_are_shown(self) -> None:
        """Every example is on a page, and every one that a page includes is there."""
        text = "\n".join(page(f"docs/{path.name}") for path in (CHECKOUT / "docs").glob("*.md"))
        shown = re.findall(r"^```\{literalinclude\} examples/(\S+)\n", text, re.MULTILINE)
        self.assertEqual(sorted(set(shown)), sorted(path.name for path in examples()))

    def test_all_are_run(self) -> None:
        """A test names every example as the file that it runs."""
        tests = CHECKOUT / "tests"
        files = [*tests.glob("test_*.py"), *(tests / "proof").glob("test_*.py")]
        text = "\n".join(path.read_text(encoding="utf-8") for path in files)
        for path in examples():
            self.assertRegex(text, rf'["/]{re.escape(path.name)}"', path.name)

    def test_python_on_pages(self) -> None:
        """A page has no Python of its own but a few lines to show names, which run as they are."""
        for path in (CHECKOUT / "docs").glob("*.md"):
            text = page(f"docs/{path.name}")
            self.assertEqual([*blocks(text, "py"), *blocks(text, "pycon")], [], path.name)
            for block in blocks(text, "python"):
                self.assertLessEqual(len(block.splitlines()), SHORT, f"{path.name}: {block}")
                done = subprocess.run(
                    [sys.executable, "-c", block], env=environment(), capture_output=True, text=True
                )
                self.assertEqual(done.returncode, 0, f"{path.name}: {done.stderr}")


def environment(**more: str) -> dict[str, str]:
    """The variables of a program that finds the package."""
    return {**os.environ, "PYTHONPATH": str(CHECKOUT / "src"), **more}


class ProgramCase(SynchronousTestCase):
    """Runs examples as a reader does."""

    def setUp(self) -> None:
        self.root = Path(self.mktemp()).absolute() / "root"
        self.root.mkdir(parents=True)
        (self.root / "a.txt").write_text("hello")

    def output(self, *words: str | Path, **more: str) -> str:
        """What one prints that ends by itself, and complains of nothing."""
        done = subprocess.run(
            [sys.executable, *words], cwd=EXAMPLES, env=environment(**more), capture_output=True, text=True
        )
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        return done.stdout

    @contextmanager
    def program(self, *words: str | Path, **more: str) -> Iterator[int]:
        """One that serves until Ctrl-C, which ends it without a complaint; the port that it printed."""
        process = subprocess.Popen(
            [sys.executable, *words],
            cwd=EXAMPLES,
            env=environment(XDG_STATE_HOME=str(self.root.parent / "state"), **more),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stdout is not None
            word, _, port = process.stdout.readline().partition(" ")
            self.assertEqual(word, "port")
            yield int(port)
            process.send_signal(signal.SIGINT)
            self.assertEqual((process.communicate()[1], process.returncode), ("", 0))
        finally:
            process.kill()
            process.communicate()


class ServingTests(ProgramCase):
    """Programs with a server inside."""

    def test_embedded(self) -> None:
        """A server in a plain program, beside asyncio, and as a service of Twisted lets a client in."""
        secret = token()
        for name in ("embedded.py", "beside_asyncio.py", "in_twisted.py"):
            running = self.program(name, self.root, FILEEXPORT_TOKEN=secret)
            with running as port, Client("127.0.0.1", port, secret) as client:
                self.assertEqual(list(client.list_files("/")), ["a.txt"], name)

    def test_service_speaks_http(self) -> None:
        """The service answers HTTP on the same port."""
        secret = token()
        with self.program("in_twisted.py", self.root, FILEEXPORT_TOKEN=secret) as port:
            asked = urllib.request.Request(f"http://127.0.0.1:{port}/a.txt")
            asked.add_header("Authorization", f"Bearer {secret}")
            with urllib.request.urlopen(asked) as answer:
                self.assertEqual(answer.read(), b"hello")

    def test_own_socket(self) -> None:
        """Both protocols answer on the program's socket, with TLS."""
        secret = token()
        pin, key = generate_keys()
        file = self.root.parent / "key.pem"
        file.write_text(key, encoding="ascii")
        with self.program("own_socket.py", self.root, file, FILEEXPORT_TOKEN=secret) as port:
            with Client("127.0.0.1", port, secret, public_key=pin) as client:
                self.assertEqual(list(client.list_files("/")), ["a.txt"])
            curl = ["curl", "-sk", "--oauth2-bearer", secret, f"https://127.0.0.1:{port}/a.txt"]
            self.assertEqual(subprocess.run(curl, capture_output=True).stdout, b"hello")


class AskingTests(ProgramCase):
    """Programs that ask a server, and tests of such programs."""

    def test_async_asyncio(self) -> None:
        """The Twisted client under asyncio."""
        server = self.enterContext(serving(self.root))
        asked = {**server.environment, "FILEEXPORT_TOKEN": server.token}
        self.assertEqual(self.output("async_asyncio.py", "/a.txt", "/", **asked), "/a.txt 5\n/ 0\n")

    def test_tests(self) -> None:
        """The tests of the guide pass."""
        temporary = f"--temp-directory={self.root.parent / 'trial'}"
        shown = self.output("-m", "twisted.trial", temporary, Path("test_newest.py").stem)
        self.assertIn("successes=3", shown)
