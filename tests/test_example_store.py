"""docs/examples: a store that is given what it cannot keep, and programs that cannot start."""

from __future__ import annotations

import http.client
import json
import runpy
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, Never

from twisted.trial.unittest import SynchronousTestCase

from fileexport.embed import HttpServer
from tests.server_case import PATIENCE, environment
from tests.test_docs import CHECKOUT

EXAMPLES = CHECKOUT / "docs" / "examples"
STORE = EXAMPLES / "store.py"
#: Programs whose first argument is a port.
PORT_PROGRAMS = ("serve.py", "words.py", "store.py")


class ExampleCase(SynchronousTestCase):
    """Has an empty directory."""

    def setUp(self) -> None:
        self.here = Path(self.mktemp()).absolute()
        self.here.mkdir(parents=True)
        self.file = self.here / "values.json"

    def refusal(self, name: str, *arguments: str | Path) -> str:
        """What a program says that does not start: a line, with which it exits."""
        self.patch(sys, "argv", [name, *map(str, arguments)])
        ended = self.assertRaises(SystemExit, runpy.run_path, str(EXAMPLES / name), run_name="__main__")
        self.assertIsInstance(ended.code, str, "a text is what makes the status 1")
        self.assertNotIn("\n", str(ended.code))
        return str(ended.code)


class StoreTests(ExampleCase):
    """The store, with a server in this process."""

    def setUp(self) -> None:
        super().setUp()
        self.program: dict[str, Any] = runpy.run_path(str(STORE))

    def store(self) -> Any:
        """A store of the file."""
        return self.program["Store"](self.file)

    def serve(self) -> http.client.HTTPConnection:
        """A connection to a server of the store."""
        server = HttpServer(0, self.program["answer"], (self.store(),), block=False)
        self.addCleanup(server.stop)
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE / 1000)
        self.addCleanup(connection.close)
        return connection

    def ask(self, to: http.client.HTTPConnection, method: str, path: str, body: str = "") -> tuple[int, Any]:
        """Status and value of the answer, which is JSON as the standard has it."""
        status, answer = raw(to, method, path, body)
        return status, json.loads(answer, parse_constant=no_json)

    def test_numbers(self) -> None:
        """Numbers that JSON does not have are refused, large ones that it has are kept."""
        server = self.serve()
        for text in ("1e999", "-1e999", '[{"a": 1e400}]', "NaN", "Infinity", "-Infinity", "1" * 5000):
            self.assertEqual(self.ask(server, "PUT", "/x", text)[0], 400, text[:20])
        self.assertEqual(self.ask(server, "GET", "/"), (200, {}))
        for text in ("1e308", "1" * 4000, "1e-999"):
            self.assertEqual(self.ask(server, "PUT", "/" + text[:4], text)[0], 201)
            self.assertEqual(self.ask(server, "GET", "/" + text[:4]), (200, json.loads(text)))

    def test_deep(self) -> None:
        """What is nested too deeply is refused; all that was taken can be read, and by the next start too."""
        server = self.serve()
        kept = []
        for depth in (1, 100, *range(940, 1000), 100_000):
            status, _ = raw(server, "PUT", f"/{depth}", "[" * depth + "]" * depth)
            self.assertIn(status, (201, 400), depth)
            kept += [depth] if status == 201 else []
            self.assertEqual(raw(server, "GET", f"/{depth}")[0], 200 if status == 201 else 404)
        self.assertLessEqual({1, 100}, set(kept))
        self.assertNotIn(100_000, kept)
        self.assertEqual(raw(server, "GET", "/")[0], 200)
        again = "from pathlib import Path; from store import read; print(*read(Path(input())))"
        said = subprocess.run(
            [sys.executable, "-c", again],
            cwd=EXAMPLES,
            env=environment() | {"PYTHONDONTWRITEBYTECODE": "1"},
            input=str(self.file),
            capture_output=True,
            encoding="ascii",
        )
        self.assertEqual((said.stdout.split(), said.stderr), ([f"{depth}" for depth in kept], ""))

    def test_one_at_a_time(self) -> None:
        """A second store of the same file is refused, also after changes; the next one finds all of them."""
        first = self.store()
        for name in ("a", "b"):
            error = self.assertRaises(ValueError, self.store)
            self.assertEqual(str(error), f"another program keeps its values in {self.file}")
            first.put(name, 1)
        (self.here / "link").symlink_to(self.file)
        self.assertIn("another program", self.refusal("store.py", "0", self.here / "link"))
        del first
        self.assertEqual(self.store().all(), {"a": 1, "b": 1})


class StartTests(ExampleCase):
    """Programs that cannot start say why in one line."""

    def test_ports(self) -> None:
        """A port that is none, and one that is taken."""
        taken = self.enterContext(socket.create_server(("127.0.0.1", 0))).getsockname()[1]
        for name in PORT_PROGRAMS:
            for port in ("abc", "-1", "65536", f"{taken}"):
                # A file of its own for each: as long as this process lives, it may be the store's.
                self.assertIn(port, self.refusal(name, port, self.here / port))

    def test_files(self) -> None:
        """A file that holds something else, or that cannot be there."""
        wrong = (b"", b'{"a":', b"\xef\xbb\xbf{}", b"[1]", b"null", b"5", b'"abc"', b"\xff", b"[" * 100_000)
        for number, content in enumerate(wrong):
            file = self.here / f"{number}"
            file.write_bytes(content)
            self.assertEqual(self.refusal("store.py", "0", file), f"{file} does not hold a JSON object")
            self.assertEqual(file.read_bytes(), content)
        for path in (self.here, self.here / "none" / "f", Path("/")):
            self.assertIn(str(path), self.refusal("store.py", "0", path))

    def test_status(self) -> None:
        """The line is on standard error, and the status 1; a program that was killed leaves the file free."""
        words: list[str | Path] = [sys.executable, STORE, "0", self.file]
        with subprocess.Popen(words, env=environment(), stdout=subprocess.PIPE) as first:
            assert first.stdout is not None
            self.assertTrue(first.stdout.readline())
            second = subprocess.run(words, env=environment(), capture_output=True, encoding="ascii")
            said = f"another program keeps its values in {self.file}\n"
            self.assertEqual((second.returncode, second.stdout, second.stderr), (1, "", said))
            first.kill()
        self.assertEqual(runpy.run_path(str(STORE))["Store"](self.file).all(), {})


def raw(to: http.client.HTTPConnection, method: str, path: str, body: str = "") -> tuple[int, bytes]:
    """Status and body of an answer."""
    to.request(method, path, body)
    with to.getresponse() as answer:
        return answer.status, answer.read()


def no_json(constant: str) -> Never:
    """Refuse what Python's `json` takes beside JSON."""
    raise AssertionError(f"{constant} is no JSON")
