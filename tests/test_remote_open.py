"""`fileexport.open` and `Client.open`: the same parameters, objects and refusals as the built-in `open`."""

from __future__ import annotations

import builtins
import contextlib
import io
import os
import socket
import stat
import subprocess
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

from twisted.trial.unittest import SynchronousTestCase

import fileexport
from fileexport.client.names import remote_path
from fileexport.errors import AuthenticationError, FileNameError
from fileexport.testing import serving

TOKEN = "fex1_opening-" + "x1Y2z3W4" * 5
TEXT = "eins\r\nzwei\nä drei\rvier"
Open = Callable[..., IO[Any]]
#: What both kinds of files are asked, by parameters of `open`.
READING: tuple[Mapping[str, Any], ...] = (
    {},
    {"mode": "rt"},
    {"mode": "tr", "newline": ""},
    {"newline": "\n"},
    {"newline": "\r\n"},
    {"buffering": 1},
    {"buffering": 7},
    {"encoding": "latin-1"},
    {"encoding": "ascii", "errors": "replace"},
    {"encoding": "ascii", "errors": "surrogateescape"},
)
WRONG: tuple[Mapping[str, Any], ...] = (
    *({"mode": mode} for mode in ("", "b", "t", "rw", "rr", "rbt", "U", "rU", "z", "wx", "r w", "bt")),
    {"buffering": 0},
    {"mode": "w", "buffering": 0},
    *({"mode": "rb", name: "ascii"} for name in ("encoding", "errors", "newline")),
    {"newline": "x"},
    {"mode": "w", "newline": "x"},
    {"encoding": "none-such"},
    {"mode": "w", "encoding": "none-such"},
    {"mode": 5},
    {"mode": None},
)


class OpenCase(SynchronousTestCase):
    """A real server with the file `a`, and the environment of its users."""

    def setUp(self) -> None:
        self.root = Path(self.mktemp()).absolute()
        self.root.mkdir()
        (self.root / "a").write_bytes(TEXT.encode())
        server = self.enterContext(serving(self.root, token=TOKEN))
        self.port = server.port
        self.client = self.enterContext(server.client())
        kept = {name: value for name, value in os.environ.items() if not name.startswith("FILEEXPORT_")}
        self.environ = {
            **kept,
            "FILEEXPORT_HOSTNAME": "127.0.0.1",
            "FILEEXPORT_PORT": str(self.port),
            "FILEEXPORT_TOKEN": TOKEN,
        }
        self.patch(os, "environ", self.environ)

    def both(self) -> tuple[tuple[Open, str], tuple[Open, str]]:
        """What opens the same file here and there."""
        return (builtins.open, str(self.root / "a")), (self.client.open, "/a")


class SameTests(OpenCase):
    """As the built-in one."""

    def test_reading(self) -> None:
        """Lines, positions and the end are those of a local file, whatever the parameters."""
        for options in READING:
            found: list[list[object]] = []
            for opener, path in self.both():
                with opener(path, **{"encoding": "utf-8", **options}) as file:
                    seen: list[object] = [file.mode, Path(file.name).name, file.readline()]
                    mark = file.tell()
                    seen += [mark, file.read(3), *file, file.read()]
                    file.seek(mark)
                    seen += [file.readlines(), file.tell(), file.closed]
                found.append([*seen, file.closed])
            self.assertEqual(found[0], found[1], options)

    def test_kinds(self) -> None:
        """The objects are of the same kinds, and know their modes."""
        for mode, buffering in (
            ("r", -1),
            ("rb", -1),
            ("rb", 0),
            ("w", -1),
            ("wb", -1),
            ("wb", 0),
            ("xb", 5),
        ):
            found = []
            for opener, path in self.both():
                with opener(path[:-1] + ("x" if "x" in mode else "a"), mode, buffering=buffering) as file:
                    kinds = (io.TextIOWrapper, io.BufferedReader, io.BufferedWriter, io.RawIOBase)
                    is_kind = [isinstance(file, kind) for kind in kinds]
                    abilities = file.readable(), file.writable(), file.seekable(), file.isatty()
                    found.append((is_kind, file.mode, abilities))
                (self.root / "x").unlink(missing_ok=True)
            self.assertEqual(*found)

    def test_writing(self) -> None:
        """Text is written as locally: encodings, errors, ends of lines."""
        for options in READING:
            if "mode" not in options and options.get("errors") != "surrogateescape":
                found: list[object] = []
                for opener, path in self.both():
                    with opener(path, "w", **{"encoding": "utf-8", "errors": "replace", **options}) as file:
                        found.append((file.write("a\nb\r\n"), file.writelines(["ü\n", "x"]), file.tell()))
                    found.append((self.root / "a").read_bytes())
                self.assertEqual(found[:2], found[2:], options)

    def test_wrong(self) -> None:
        """What the built-in one refuses is refused by the same exception."""
        for options in WRONG:
            kinds = []
            for opener, path in self.both():
                try:
                    opener(path, **options).close()
                except (ValueError, LookupError, TypeError) as error:
                    kinds.append(type(error))
            self.assertEqual(kinds, kinds[:1] * 2, options)

    def test_not_here(self) -> None:
        """Modes that no remote file has are `UnsupportedOperation`: an OSError and a ValueError."""
        for mode in ("a", "ab", "r+", "w+b", "x+", "at+"):
            error = self.assertRaises(io.UnsupportedOperation, self.client.open, "/a", mode)
            self.assertIn(mode, str(error))

    def test_encoding_warning(self) -> None:
        """Who asks to be warned of text without an encoding is, at the line that opens it."""
        code = f"import fileexport\nfileexport.open('fileexport://127.0.0.1:{self.port}/a').close()"
        done = subprocess.run(
            [sys.executable, "-X", "warn_default_encoding", "-W", "error::EncodingWarning", "-c", code],
            env={**self.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=False,
        )
        self.assertIn("EncodingWarning", done.stderr)


class PlaceTests(OpenCase):
    """Which file of which server."""

    def test_environment(self) -> None:
        """Without a client the environment names the server, for which a path is enough."""
        with fileexport.open("/a", encoding="utf-8", newline="") as file:
            self.assertEqual(file.read(), TEXT)
        with fileexport.open("/b", "xb") as new:
            new.write(b"b")
        self.assertEqual((self.root / "b").read_bytes(), b"b")
        del self.environ["FILEEXPORT_TOKEN"]
        self.assertRaises(ValueError, fileexport.open, "/a")

    def test_url(self) -> None:
        """A URL names the server; its path is percent-encoded, the rest is literal."""
        name = os.fsdecode(b"\xff %?#+")
        (self.root / name).write_bytes(b"odd")
        self.environ["FILEEXPORT_HOSTNAME"] = "192.0.2.1"
        url = f"fileexport://127.0.0.1:{self.port}"
        for path in ("/%FF%20%25%3F%23%2B", "/%FF %25?#+"):
            with fileexport.open(url + path, "rb") as file:
                self.assertEqual((file.read(), file.name), (b"odd", str(remote_path(f"/{name}"))))
        self.assertRaises(FileNameError, fileexport.open, f"{url}/a/%2E%2E/a")
        self.assertRaises(FileNameError, fileexport.open, f"{url}/%2Fa")

    def test_client(self) -> None:
        """With a client a URL may only name its server, or none; a host without a port has the usual one."""
        for url in (f"fileexport://127.0.0.1:{self.port}/a", "fileexport:///a"):
            with self.client.open(url, "rb") as file, fileexport.open(url, "rb", client=self.client) as other:
                self.assertEqual(file.read(), other.read())
        for url in (
            "fileexport://localhost/a",
            "fileexport://127.0.0.1/a",
            f"fileexport://127.0.0.1:{self.port + 1}/a",
        ):
            self.assertRaises(ValueError, self.client.open, url)
            self.assertRaises(ValueError, fileexport.open, url, client=self.client)

    def test_wrong(self) -> None:
        """A relative path, and a URL with a user, are refused; what may be a secret is not repeated."""
        self.assertRaises(ValueError, self.client.open, "a")
        self.assertRaises(ValueError, fileexport.open, "")
        error = self.assertRaises(ValueError, fileexport.open, "fileexport://me:secret@127.0.0.1/a")
        self.assertNotIn("secret", str(error))
        for path in (5, b"/a"):
            error = self.assertRaises(TypeError, self.client.open, path)
            self.assertIn(type(path).__name__, str(error))
            self.assertRaises(TypeError, fileexport.open, path)

    def test_slash(self) -> None:
        """A path that ends with a slash is no file's: the error is the one of a local file."""
        (self.root / "d").mkdir()
        for path in ("a/", "d/", "none/", "a//", ""):
            for mode in ("r", "wb", "x"):
                local = self.assertRaises(OSError, builtins.open, f"{self.root}/{path}", mode)
                for there in (self.client.open, fileexport.open):
                    self.assertRaises(type(local), there, f"/{path}", mode)
        self.assertEqual((self.root / "a").read_bytes(), TEXT.encode())
        self.assertFalse((self.root / "none").exists())

    def test_remote_path(self) -> None:
        """A `RemotePath` is opened by its client; another server's client is refused."""
        self.environ.clear()
        path = self.client.path("/a")
        for client in (None, self.client):
            with fileexport.open(path, "rb", client=client) as file:
                self.assertEqual(file.read(), TEXT.encode())
        with fileexport.Client("127.0.0.1", 1, TOKEN) as other:
            self.assertRaises(ValueError, fileexport.open, path, client=other)

    def test_own_client(self) -> None:
        """A file without a client closes the one that it made, also where it failed."""
        (self.root / "d").mkdir()
        for _ in range(5):
            for mode in ("r", "rb", "w"):
                fileexport.open("/a", mode).close()
            self.assertRaises(IsADirectoryError, fileexport.open, "/d", "w")
            self.assertRaises(FileNotFoundError, fileexport.open, "/none")
            late = fileexport.open("/d/x", "w")
            (self.root / "d").rmdir()
            self.assertRaises(FileNotFoundError, late.close)
            (self.root / "d").mkdir()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                fileexport.open("/a", "w").write("x")
            self.assertEqual(self.connections(), 0)

    def connections(self) -> int:
        """Sockets of this process that are connected to the server."""
        found = 0
        for name in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):
                if stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                    with socket.socket(fileno=os.dup(int(name))) as one:
                        found += one.getpeername()[1:2] == (self.port,)
        return found

    def test_wrong_token(self) -> None:
        """A server that does not take the token says so at once."""
        self.environ["FILEEXPORT_TOKEN"] = "x" * 40
        self.assertRaises(AuthenticationError, fileexport.open, "/a")

    def test_timeout(self) -> None:
        """A time-out of the client's method is one of each answer."""
        with self.client.open("/a", "rb", timeout=20_000) as file:
            self.assertEqual(file.read(), TEXT.encode())
        self.assertRaises(ValueError, self.client.open, "/a", timeout=0)


class ImportTests(OpenCase):
    """What a program pays for."""

    def test_built_in(self) -> None:
        """`from fileexport import *` leaves the built-in one where it is."""
        self.assertNotIn("open", fileexport.__all__)
        names: dict[str, object] = {}
        exec("from fileexport import *", names)
        self.assertNotIn("open", names)

    def test_imports(self) -> None:
        """Opening, reading and writing files loads no Twisted, nor what only others need."""
        code = (
            "import sys, fileexport\n"
            "with fileexport.open('/a', encoding='utf-8') as file: file.read()\n"
            "with fileexport.open('/new', 'w', encoding='utf-8') as file: file.write('new')\n"
            "names = 'twisted jinja2 rich pathspec ssl cryptography asyncio OpenSSL click fsspec'.split()\n"
            "print(*sorted(set(sys.modules) & set(names)))\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**self.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=False,
        )
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "\n", ""))
        self.assertEqual((self.root / "new").read_bytes(), b"new")
