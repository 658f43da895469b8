"""`AsyncClient`: `Client`'s verbs as Deferreds, all on one connection."""

from __future__ import annotations

import gc
import inspect
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from typing import Any

from twisted.internet.defer import CancelledError, Deferred

import fileexport
from fileexport import (
    AuthenticationError,
    ChangedWhileRead,
    Client,
    CorruptedResponse,
    DestinationNotFound,
    FileNameError,
    UnexpectedError,
)
from fileexport.client.deferred.client import AsyncClient
from fileexport.paths import RelPath
from fileexport.wire import messages as m
from tests.async_case import AsyncCase
from tests.client_server import Peer

#: What blocks by its nature: objects of Python's own for files and paths.
BLOCKING = {"open", "path"}
FUNCTIONS = ("upload_files", "download_files", "synchronize_upload", "synchronize_download")


def parameters(function: Any, leaves_out: int) -> list[tuple[str, Any, Any]]:
    """Names, kinds and defaults."""
    found = [*inspect.signature(function).parameters.values()][leaves_out:]
    return [(one.name, one.kind, one.default) for one in found]


class SameNamesTests(AsyncCase):
    """It is `Client`, but for what waits."""

    def test_verbs(self) -> None:
        """Every public name of `Client` is there with the same parameters."""
        for name, member in inspect.getmembers(Client):
            if name.startswith("_") or name in BLOCKING:
                continue
            ours = getattr(AsyncClient, name)
            self.assertEqual(isinstance(ours, property), isinstance(member, property), name)
            if inspect.isfunction(member):
                self.assertEqual(parameters(ours, 1), parameters(member, 1), name)
                self.assertTrue(ours.__doc__, name)

    def test_functions(self) -> None:
        """The functions for many files are methods here, with the same parameters."""
        for name in FUNCTIONS:
            self.assertEqual(
                parameters(getattr(AsyncClient, name), 1), parameters(getattr(fileexport, name), 1)
            )

    def test_making_one(self) -> None:
        """It takes what `Client` takes, and refuses what that refuses, before anything is connected."""
        theirs = parameters(Client, 0)
        self.assertEqual(parameters(AsyncClient, 0)[: len(theirs)], theirs)
        wrongs: tuple[dict[str, Any], ...] = (
            {"port": 0},
            {"token": "short"},
            {"timeout": 0},
            {"public_key": "sha256/no"},
            {"tls": False, "ca_file": "ca.pem"},
        )
        for wrong in wrongs:
            with self.assertRaises(ValueError):
                AsyncClient("localhost", reactor=self.thread.reactor, **wrong)

    def test_imports(self) -> None:
        """`fileexport` and `Client` import no Twisted; naming `AsyncClient` installs no reactor."""
        program = (
            "import sys, fileexport; fileexport.Client('localhost', 6768, 'a-token-of-some-length');"
            "assert 'twisted' not in sys.modules; fileexport.AsyncClient;"
            "assert 'twisted.internet.reactor' not in sys.modules"
        )
        subprocess.run([sys.executable, "-c", program], check=True, env={**os.environ})


class VerbTests(AsyncCase):
    """What it says is what `Client` says."""

    def test_looking(self) -> None:
        """Listings, entries, content and hashes are those of the server."""
        (self.root / "d").mkdir()
        (self.root / "d/a").write_bytes(b"content")
        os.utime(self.root / "d/a", (7, 7))
        client = self.client()

        async def look() -> list[object]:
            return [
                await client.list_files("/d"),
                (await client.stat("/d/a")).size,
                [one.path async for one in client.entries("/", recursive=True)],
                b"".join([piece async for piece in client.read("/d/a")]),
                [(one.path, one.size) async for one in client.hashes("/d")],
            ]

        expected = [{"a": (False, 7, 7)}, 7, ["d", "d/a"], b"content", [("a", 7)]]
        self.assertEqual(self.run_(look), expected)

    def test_changing(self) -> None:
        """What is made, moved and removed is made, moved and removed."""
        client = self.client()

        async def change() -> int:
            await client.make_directory("d", "/")
            await client.create_file("a", "/d")
            await client.rename("/d/a", "/d/b")
            await client.move("/d/b", "/c")
            await client.create_file("b", "/d")
            await client.delete_file("b", "/d")
            return await client.remove("/d", recursive=True)

        self.assertEqual(self.run_(change), 1)
        self.assertEqual(set(os.listdir(self.root)) - {".fileexport"}, {"c"})

    def test_errors(self) -> None:
        """Errors are the exceptions of `Client`, with the paths that are to blame; nothing else suffers."""
        (self.root / "a").touch()
        client = self.client()

        async def fail(call: Any) -> BaseException:
            try:
                await call()
            except Exception as error:
                return error
            raise AssertionError("no error")

        async def all_() -> list[BaseException]:
            return [
                await fail(lambda: client.stat("/none")),
                await fail(lambda: client.make_directory("x", "/none")),
                await fail(lambda: client.create_file("a", "/")),
                await fail(lambda: client.move("/a", "/none/b")),
                await fail(lambda: client.stat("relative")),
                await fail(lambda: client.stat("/..")),
                await fail(lambda: client.jobs(0)),
                await fail(lambda: client.list_files("/a")),
                await fail(lambda: client.stat("/a", timeout=-1)),
                await fail(lambda: client.upload_file("/nowhere", "/")),
            ]

        found = self.run_(all_)
        kinds = [FileNotFoundError, DestinationNotFound, FileExistsError, DestinationNotFound, ValueError]
        kinds += [FileNameError, ValueError, NotADirectoryError, ValueError, fileexport.SourceNotFound]
        self.assertEqual([type(error) for error in found], kinds)
        names = [getattr(error, "filename", None) for error in found[:4]]
        self.assertEqual(names, ["/none", "/none", "/a", "/none"])

    def test_one_connection(self) -> None:
        """All operations share a connection, however many there are; results are in the order of calls."""
        for number in range(300):
            (self.root / str(number)).write_bytes(b"x" * number)
        client = self.client()

        async def ask() -> list[int]:
            begun = [client.stat(f"/{number}") for number in range(300)]
            return [(await one).size for one in begun]

        self.assertEqual(self.run_(ask), list(range(300)))
        self.assertEqual(self.thread.call(lambda: len(client._board._links)), 1)

    def test_cancelled(self) -> None:
        """Those that are cancelled fail with CancelledError; the others, and those after them, are right."""
        for number in range(200):
            (self.root / str(number)).write_bytes(b"x" * number)
        client = self.client()

        async def ask() -> tuple[list[int], int, int]:
            begun = [client.stat(f"/{number}") for number in range(200)]
            for one in begun[1::2]:
                one.cancel()
            sizes = [(await one).size for one in begun[::2]]
            cancelled = 0
            for one in begun[1::2]:
                try:
                    await one
                except CancelledError:
                    cancelled += 1
            return sizes, cancelled, len(await client.list_files("/"))

        self.assertEqual(self.run_(ask), (list(range(0, 200, 2)), 100, 200))
        self.assertEqual(self.thread.call(lambda: len(client._board._links)), 1)

    def test_wrong_token(self) -> None:
        """A token that is wrong is said to be, to everybody who waits."""
        client = self.client()
        other = self.connected(client._board.server.port, "fex1_other-" + "x1Y2z3W4" * 5)

        async def ask() -> list[Exception]:
            begun: list[Deferred[Any]] = [other.stat("/"), other.list_files("/")]
            found: list[Exception] = []
            for one in begun:
                try:
                    await one
                except AuthenticationError as error:
                    found.append(error)
            return found

        self.assertEqual(len(self.run_(ask)), 2)

    def test_no_server(self) -> None:
        """Where nobody listens it is ConnectionRefusedError with the place, as of `Client`."""
        client = self.connected(1, "fex1_other-" + "x1Y2z3W4" * 5)

        async def ask() -> object:
            return await client.stat("/")

        error = self.assertRaises(ConnectionRefusedError, self.run_, ask)
        self.assertIn("127.0.0.1 port 1", str(error))


class IteratorTests(AsyncCase):
    """Async iterators."""

    def fill(self, count: int) -> None:
        for number in range(count):
            (self.root / f"{number:04}").write_bytes(b"content")

    def test_closed_early(self) -> None:
        """One that is closed, or forgotten, leaves its place to others; a further item is the end."""
        self.fill(1500)
        client = self.client()

        async def look() -> tuple[int, list[object]]:
            for _ in range(40):
                found = client.entries("/")
                await found.__anext__()
                await found.aclose()
            for _ in range(40):
                async for _entry in client.entries("/"):
                    break
            gc.collect()
            return len(await client.list_files("/")), [one async for one in found]

        self.assertEqual(self.run_(look), (1500, []))

    def test_error_on_the_way(self) -> None:
        """An error is raised behind what came before it, once; then it is over."""

        def script(peer: Peer) -> None:
            stream, _ = peer.hear(m.List)
            peer.say(m.Entries([m.Entry(RelPath(("a",)), "file", 1, 1)]), stream)
            peer.say(m.Reset(0), stream)
            peer.next()

        client = self.scripted(script)

        async def look() -> tuple[list[str], str, list[object]]:
            found = client.entries("/")
            names = []
            try:
                async for one in found:
                    names.append(one.path)
            except UnexpectedError as error:
                return names, str(error), [one async for one in found]
            raise AssertionError("no error")

        self.assertEqual(self.run_(look), (["a"], "the server cancelled the operation", []))

    def test_two_at_once(self) -> None:
        """A second item is not to be awaited before the first has come."""
        self.fill(1)
        client = self.client()

        async def look() -> None:
            found = client.entries("/")
            first = found.__anext__()
            self.assertRaises(RuntimeError, found.__anext__)
            await first

        self.run_(look)

    def test_of_a_thread(self) -> None:
        """Blocking iterators are stepped through in threads; a slow taker holds none of them."""
        self.fill(1500)
        client = self.client()
        paths = [f"/{number:04}" for number in range(1500)]

        async def look() -> tuple[int, int, int]:
            found = [client.hash_files(paths) for _ in range(20)]
            counts = []
            for one in found:
                await one.__anext__()
            busy = len([one for one in threading.enumerate() if one.name == "fileexport-bridge"])
            counts = [len([item async for item in one]) for one in found]
            return max(counts), min(counts), busy

        most, least, busy = self.run_(look)
        self.assertEqual((most, least), (1499, 1499))
        self.assertLessEqual(busy, 16)

    def test_bridged_closed_early(self) -> None:
        """A bridged iterator that is closed early, at once or in the midst, ends its operation."""
        self.fill(2000)
        client = self.client()
        paths = [f"/{number:04}" for number in range(2000)]

        async def look() -> int:
            for count in (0, 1, 500):
                for _ in range(30):
                    found = client.read_files(paths)
                    for _ in range(count):
                        await found.__anext__()
                    await found.aclose()
            return len(await client.list_files("/"))

        self.assertEqual(self.run_(look), 2000)

    def test_lies(self) -> None:
        """A server that lies is found out as by `Client`, and the client goes on."""

        def script(peer: Peer) -> None:
            stream, _ = peer.hear(m.List)
            peer.say(m.Entries([]), stream)
            peer.hear(m.Reset)
            stream, _ = peer.hear(m.Read)
            peer.say(m.Content(3, 7, b"v"), stream)
            peer.data(stream, b"abc")
            peer.say(m.End(3, bytes(32)), stream)
            peer.next()

        client = self.scripted(script)

        async def take(found: AsyncIterator[object]) -> BaseException | None:
            try:
                async for _ in found:
                    pass
            except Exception as error:
                return error
            return None

        async def look() -> list[type]:
            return [type(await take(client.entries("/"))), type(await take(client.read("/a")))]

        self.assertEqual(self.run_(look), [CorruptedResponse, ChangedWhileRead])


class EndTests(AsyncCase):
    """`close`, and the end of the reactor."""

    def test_close(self) -> None:
        """What is under way is cancelled, no thread and no connection is left; then it connects again."""
        (self.here / "big").write_bytes(b"x" * 30_000_000)
        client = self.client()

        async def end() -> tuple[list[str], set[str]]:
            begun: list[Deferred[Any]] = [
                client.upload_file(self.here / "big", "/", str(n)) for n in range(20)
            ]
            begun += [client.stat("/") for _ in range(100)]
            await client.stat("/")
            await client.close()
            names = {one.name for one in threading.enumerate()}
            ends = []
            for one in begun:
                try:
                    await one
                    ends.append("done")
                except CancelledError:
                    ends.append("cancelled")
            await client.stat("/")
            return ends, names

        ends, names = self.run_(end)
        self.assertEqual(ends[:20], ["cancelled"] * 20)
        self.assertNotIn("fileexport-bridge", names)
        self.assertEqual(set(os.listdir(self.root)) - {".fileexport"}, set())

    def test_closed_in_a_callback(self) -> None:
        """Where a callback closes the client, its transfer is cancelled; the next call connects again."""
        (self.here / "a").write_bytes(b"content")
        client = self.client()

        async def use() -> bool:
            closed: list[Deferred[None]] = []

            def end(*_: object) -> None:
                closed.append(client.close())

            try:
                await client.upload_file(self.here / "a", "/", process_chunk=end)
            except CancelledError:
                return isinstance(await client.list_files("/"), dict)
            finally:
                await closed[0]
            return False

        self.assertTrue(self.run_(use))

    def test_reactor_ends(self) -> None:
        """When the reactor is stopped, what is under way is cancelled, and no thread is left."""
        (self.here / "big").write_bytes(b"x" * 30_000_000)
        client = self.client()
        ends: list[object] = []

        def begin() -> None:
            for number in range(3):
                client.upload_file(self.here / "big", "/", str(number)).addBoth(ends.append)

        self.thread.call(begin)
        self.thread.call(client.stat, "/")
        self.thread.stop()
        self._cleanups.clear()
        self.assertEqual(len(ends), 3)
        self.assertNotIn("fileexport-bridge", {one.name for one in threading.enumerate()})
