"""One contract, each door: what all promise runs over HTTP, the transfer protocol and both clients."""

from __future__ import annotations

import json
import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar
from urllib.parse import quote_from_bytes

from blake3 import blake3
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from fileexport.client.blocking import Client
from fileexport.client.deferred.client import AsyncClient
from fileexport.errors import FileExportError
from fileexport.paths import RelPath
from fileexport.reactor_thread import ReactorThread
from fileexport.testing import serving
from fileexport.token_file import parse_token_file
from fileexport.wire import messages as m
from tests.async_case import AsyncCase
from tests.contract import MTIME, ReadingContract, Refused, WritingContract
from tests.http_client import HttpCase, HttpHarness, Response
from tests.transfer_peer import Peer, TransferCase

T = TypeVar("T")
TOKEN = "fex1_contract-" + "x1Y2z3W4" * 5


class HttpDoor:
    """HTTP in memory with a token."""

    def __init__(self, web: HttpHarness) -> None:
        self._web = web

    def entries(self, directory: str) -> dict[str, tuple[str, int]]:
        rows = json.loads(self._ask("GET", _quoted(directory.rstrip("/") + "/") + "?json").body)
        return {row["name"]: (row["type"], row["size"]) for row in rows}

    def read(self, path: str) -> bytes:
        return self._ask("GET", _quoted(path)).body

    def remove(self, path: str) -> None:
        directory, _, name = path.rpartition("/")
        self._ask("POST", f"/delete?dir={_quoted(directory)}&name={_quoted(name)}")

    def _ask(self, method: str, target: str) -> Response:
        answer = self._web.request(
            method, target, {"Authorization": f"Bearer {TOKEN}", "Accept": "application/json"}
        )
        if answer.status >= 300:
            raise Refused(answer.json()["detail"])
        return answer


def _quoted(path: str) -> str:
    return quote_from_bytes(os.fsencode(path))


class HttpContract(ReadingContract, HttpCase):
    """The export API and the paths."""

    def door(self, options: str = "") -> HttpDoor:
        return HttpDoor(self.harness(tokens=f"{TOKEN} {options}\n"))


class PeerDoor:
    """The transfer protocol in memory: frames into the real server."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer

    def entries(self, directory: str) -> dict[str, tuple[str, int]]:
        replies = [one for one in self._ask(m.List(_path(directory))) if isinstance(one, m.Entries)]
        rows = [row for reply in replies for row in reply.entries]
        return {"/".join(row.path): (row.type, row.size) for row in rows}

    def read(self, path: str) -> bytes:
        said = self._ask(m.Read(_path(path)))
        content = b"".join(one for one in said if isinstance(one, bytes))
        end = said[-1]
        assert isinstance(end, m.End) and end.digest == blake3(content).digest()
        return content

    def remove(self, path: str) -> None:
        self._ask(m.Remove(_path(path)))

    def write(self, path: str, content: bytes, *, mtime_ns: int = MTIME, replace: bool = False) -> None:
        peer = self._peer
        stream = peer.begin(m.Write(_path(path), len(content), mtime_ns, replace))
        for start in range(0, len(content), 1 << 20):
            if peer.session.is_open(stream):
                peer.data(stream, content[start : start + (1 << 20)])
        if peer.session.is_open(stream):
            peer.end(stream, len(content), blake3(content).digest())
        self._checked(peer.said(stream))

    def make_directory(self, path: str) -> None:
        self._ask(m.MakeDirectory(_path(path)))

    def rename(self, path: str, target: str) -> None:
        self._ask(m.Rename(_path(path), _path(target)))

    def hashes(self, path: str) -> dict[str, tuple[int, bytes]]:
        replies = [one for one in self._ask(m.Hash(_path(path))) if isinstance(one, m.Hashes)]
        rows = [row for reply in replies for row in reply.hashes]
        return {"/".join(row.path): (row.size, row.digest) for row in rows}

    def _ask(self, operation: m.Open) -> list[m.Message | bytes]:
        return self._checked(self._peer.ask(operation))

    @staticmethod
    def _checked(said: list[m.Message | bytes]) -> list[m.Message | bytes]:
        last = said[-1]
        if isinstance(last, m.Reset):
            raise Refused(last.message)
        assert isinstance(last, m.End), last
        return said


class PeerContract(WritingContract, TransferCase):
    """The transfer protocol, without a socket and without a thread."""

    def door(self, options: str = "") -> PeerDoor:
        self.tokens = parse_token_file(f"{TOKEN} {options}\n", "tokens")
        peer = self.connect()
        peer.login(TOKEN)
        return PeerDoor(peer)


class ClientDoor:
    """The library's blocking client."""

    def __init__(self, client: Client, here: Path) -> None:
        self._client = client
        self._here = here

    def entries(self, directory: str) -> dict[str, tuple[str, int]]:
        with _refusals():
            return {row.path: (row.type, row.size) for row in self._client.entries(directory)}

    def read(self, path: str) -> bytes:
        with _refusals():
            return b"".join(self._client.read(path))

    def remove(self, path: str) -> None:
        with _refusals():
            self._client.remove(path)

    def write(self, path: str, content: bytes, *, mtime_ns: int = MTIME, replace: bool = False) -> None:
        source = self._here / "source"
        source.write_bytes(content)
        os.utime(source, ns=(mtime_ns, mtime_ns))
        directory, _, name = path.rpartition("/")
        with _refusals():
            self._client.upload_file(str(source), directory or "/", name, replace=replace)

    def make_directory(self, path: str) -> None:
        directory, _, name = path.rpartition("/")
        with _refusals():
            self._client.make_directory(name, directory or "/")

    def rename(self, path: str, target: str) -> None:
        with _refusals():
            self._client.rename(path, target)

    def hashes(self, path: str) -> dict[str, tuple[int, bytes]]:
        with _refusals():
            return {row.path: (row.size, row.digest) for row in self._client.hashes(path)}


@contextmanager
def _refusals() -> Iterator[None]:
    try:
        yield
    except (OSError, FileExportError) as error:
        raise Refused((isinstance(error, OSError) and error.strerror) or str(error)) from error


class ClientContract(WritingContract, SynchronousTestCase):
    """The blocking client against a server on loopback."""

    def setUp(self) -> None:
        self.root = Path(self.mktemp()).absolute() / "root"
        self.root.mkdir(parents=True)

    def door(self, options: str = "") -> ClientDoor:
        server = self.enterContext(serving(self.root, tokens=f"{TOKEN} {options}\n"))
        self.client = client = self.enterContext(server.client(token=TOKEN))
        here = self.root.parent / "here"
        here.mkdir(exist_ok=True)
        return ClientDoor(client, here)

    def test_cancelled(self) -> None:
        """What was cancelled leaves nothing, and its name is free for the very next call."""
        self.door()
        client, source = self.client, self.root.parent / "source"
        source.write_bytes(b"1" * 1052)
        for _ in range(40):
            self.assertFalse(client.upload_file(str(source), "/", None, 512, lambda *_: False))
            self.assertEqual(client.list_files("/"), {})
            self.assertTrue(client.upload_file(str(source), "/"))
            client.delete_file("source", "/")


class AsyncDoor:
    """The Twisted client, asked from another thread."""

    def __init__(self, client: AsyncClient, thread: ReactorThread, here: Path) -> None:
        self._client = client
        self._thread = thread
        self._here = here

    def _ask(self, call: Callable[[], Awaitable[T]]) -> T:
        async def carry_out() -> T:
            return await call()

        with _refusals():
            return self._thread.call(lambda: Deferred.fromCoroutine(carry_out()))

    def entries(self, directory: str) -> dict[str, tuple[str, int]]:
        async def all_() -> dict[str, tuple[str, int]]:
            return {row.path: (row.type, row.size) async for row in self._client.entries(directory)}

        return self._ask(all_)

    def read(self, path: str) -> bytes:
        async def all_() -> bytes:
            return b"".join([piece async for piece in self._client.read(path)])

        return self._ask(all_)

    def remove(self, path: str) -> None:
        self._ask(lambda: self._client.remove(path))

    def write(self, path: str, content: bytes, *, mtime_ns: int = MTIME, replace: bool = False) -> None:
        source = self._here / "source"
        source.write_bytes(content)
        os.utime(source, ns=(mtime_ns, mtime_ns))
        directory, _, name = path.rpartition("/")
        self._ask(lambda: self._client.upload_file(source, directory or "/", name, replace=replace))

    def make_directory(self, path: str) -> None:
        directory, _, name = path.rpartition("/")
        self._ask(lambda: self._client.make_directory(name, directory or "/"))

    def rename(self, path: str, target: str) -> None:
        self._ask(lambda: self._client.rename(path, target))

    def hashes(self, path: str) -> dict[str, tuple[int, bytes]]:
        async def all_() -> dict[str, tuple[int, bytes]]:
            return {row.path: (row.size, row.digest) async for row in self._client.hashes(path)}

        return self._ask(all_)


class AsyncContract(WritingContract, AsyncCase):
    """The Twisted client against a server on loopback."""

    def door(self, options: str = "") -> AsyncDoor:
        return AsyncDoor(self.client(options), self.thread, self.here)


def _path(text: str) -> RelPath:
    return RelPath.parse(text)
