"""The blocking client's code in threads: callbacks, cancelling, many at once, and what is left behind."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from blake3 import blake3
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.task import deferLater

from fileexport import BusyError, SourceNotFound
from fileexport.client import chunks
from fileexport.client.deferred.bridge import MAX_THREADS
from fileexport.client.names import LocalFile
from fileexport.wire import messages as m
from fileexport.wire.frames import Data
from fileexport.wire.session import DEFAULT_OFFER
from tests.async_case import BridgeCase, threads
from tests.client_server import RAISED, Peer, raising

MIB = 1 << 20


class CallbackTests(BridgeCase):
    """What a caller gives to be called."""

    def test_where(self) -> None:
        """Callbacks are called in the reactor's thread, with what `Client` calls them with."""
        content = self.write("a", 3 * MIB + 5)
        client = self.client()
        seen: list[tuple[bytes, int, int, str]] = []
        where: set[bool] = set()

        def process(data: bytes, left: int, size: int, name: str) -> None:
            where.add(self.thread.is_inside)
            seen.append((data, left, size, name))

        reports: list[tuple[int, int]] = []

        async def send() -> None:
            await client.upload_file(self.here / "a", "/", "b", MIB, process)
            await client.upload_file(
                self.here / "a", "/", "c", progress=lambda *report: reports.append(report)
            )

        self.run_(send)
        self.assertEqual(where, {True})
        self.assertEqual(b"".join(data for data, *_ in seen), content)
        self.assertEqual(
            [one[1:] for one in seen][::3], [(3 * MIB + 5, 3 * MIB + 5, "b"), (5, 3 * MIB + 5, "b")]
        )
        self.assertEqual(reports[-1], (3 * MIB + 5, 3 * MIB + 5))

    def test_deferred(self) -> None:
        """A callback may return a Deferred, which is waited for; its result counts."""
        self.write("a", 5 * MIB)
        client = self.client()
        reactor = self.thread.reactor
        calls: list[int] = []

        def process(data: bytes, left: int, size: int, name: str) -> Deferred[bool]:
            calls.append(left)
            return deferLater(reactor, 0.001, lambda: len(calls) < 3)

        async def send() -> tuple[bool, bool]:
            refused = await client.upload_file(self.here / "a", "/", "b", MIB, process)
            calls.clear()
            calls.append(-99)
            return refused, len(await client.list_files("/")) == 0

        self.assertEqual(self.run_(send), (False, True))

    def test_other_calls(self) -> None:
        """A callback may call the same client."""
        self.write("a", 2 * MIB)
        client = self.client()
        found: list[int] = []

        async def look() -> None:
            found.append(len(await client.list_files("/")))

        def process(*_: object) -> Deferred[None]:
            return Deferred.fromCoroutine(look())

        async def send() -> bool:
            return await client.upload_file(self.here / "a", "/", "b", MIB, process)

        self.assertEqual((self.run_(send), found), (True, [0, 0]))

    def test_raising(self) -> None:
        """What a callback raises is what the Deferred fails with, whatever it is; nothing is left."""
        self.write("a", 2 * MIB)
        client = self.client()
        (self.root / "big").write_bytes(bytes(2 * MIB))

        async def send() -> list[type]:
            kinds = []
            for kind in RAISED:
                process = raising(kind)
                up = client.upload_file(self.here / "a", "/", "b", process_chunk=process)
                down = client.download_file("/big", self.here, "b", process_chunk=process)
                kinds += [type(await self.fails(up)), type(await self.fails(down))]
            return kinds

        self.assertEqual(self.run_(send), [kind for kind in RAISED for _ in range(2)])
        self.assertEqual((self.there, set(os.listdir(self.here))), ({"big"}, {"a"}))


class CancelTests(BridgeCase):
    """Deferreds that are cancelled."""

    async def cancel(self, begin: Callable[[Callable[..., object]], Deferred[Any]]) -> type:
        """Cancel what `begin` begins once it calls back; what it fails with."""
        at_work: Deferred[None] = Deferred()

        def told(*_: object) -> None:
            if not at_work.called:
                at_work.callback(None)

        begun = begin(told)
        await at_work
        begun.cancel()
        return type(await self.fails(begun))

    def test_upload(self) -> None:
        """A cancelled upload leaves nothing, and its name is free for the very next call."""
        content = self.write("a", 8 * MIB)
        client = self.client()

        async def send() -> None:
            for _ in range(10):
                kind = await self.cancel(
                    lambda told: client.upload_file(self.here / "a", "/", "b", process_chunk=told)
                )
                self.assertIs(kind, CancelledError)
            self.assertTrue(await client.upload_file(self.here / "a", "/", "b"))

        self.run_(send)
        self.assertEqual((self.root / "b").read_bytes(), content)

    def test_download(self) -> None:
        """A cancelled download leaves nothing here once the client is closed."""
        (self.root / "a").write_bytes(bytes(8 * MIB))
        client = self.client()

        async def fetch() -> list[type]:
            kinds = []
            for _ in range(5):
                kinds.append(
                    await self.cancel(
                        lambda told: client.download_file("/a", self.here, "b", process_chunk=told)
                    )
                )
            await client.close()
            return kinds

        self.assertEqual(self.run_(fetch), [CancelledError] * 5)
        self.assertEqual((os.listdir(self.here), threads()), ([], 0))

    def test_while_it_sleeps(self) -> None:
        """What waits before its next try is cancelled, too."""
        self.patch(chunks, "BACKOFF", (100_000.0,))
        self.write("a", 2 * MIB)

        def script(peer: Peer) -> None:
            stream, _ = peer.hear(m.Write)
            peer.say(m.Ready(0), stream)

        client = self.scripted(script)

        async def send() -> type:
            begun = client.upload_file(self.here / "a", "/")
            while self.server.connections < 1 or client._board._links:
                await deferLater(self.thread.reactor, 0.001)
            begun.cancel()
            error = await self.fails(begun)
            await client.close()
            return type(error)

        self.assertEqual((self.run_(send), threads()), (CancelledError, 0))

    def test_in_the_queue(self) -> None:
        """What waits for a thread is cancelled, and never begun."""
        self.write("a", MIB)
        client = self.client()

        async def send() -> list[str]:
            begun = [client.upload_file(self.here / "a", "/", str(number)) for number in range(60)]
            for one in begun[1::2]:
                # All before the reactor's next turn: none of them has ended by itself until then.
                one.cancel()
            for one in begun[1::2]:
                self.assertIsInstance(await self.fails(one), CancelledError)
            await gatherResults(begun[::2])
            return sorted(await client.list_files("/"))

        self.assertEqual(self.run_(send), sorted(map(str, range(0, 60, 2))))


class ManyTests(BridgeCase):
    """Many at once."""

    def test_uploads_and_downloads(self) -> None:
        """Large files go both ways at once and share the connection's credit; all are right."""
        content = self.write("a", 12 * MIB)
        (self.root / "there").write_bytes(content)
        client = self.client()
        most: list[int] = []

        def count(_: object) -> bool:
            most.append(threads())
            return True

        async def both() -> None:
            begun: list[Deferred[Any]] = []
            begun += [client.upload_file(self.here / "a", "/", str(number)) for number in range(12)]
            begun += [client.download_file("/there", self.here, f"{number}") for number in range(12)]
            begun += [client.stat("/").addCallback(count) for _ in range(50)]
            self.assertEqual(set(await gatherResults(begun)), {True})

        self.run_(both)
        digest = blake3(content).digest()
        for number in range(12):
            for place in (self.root, self.here):
                self.assertEqual(blake3((place / str(number)).read_bytes()).digest(), digest)
        self.assertLessEqual(max(most), MAX_THREADS)
        self.assertEqual(self.thread.call(lambda: len(client._board._links)), 1)

    def test_small_windows(self) -> None:
        """A server with small windows gets all of it, nevertheless."""
        contents = [self.write(str(number), 300_000) for number in range(6)]
        offer = m.Offer(control=64 << 10, data=4096, streams=8, stream_credit=32768, connection_credit=40000)
        kept: dict[str, bytes] = {}

        def script(peer: Peer) -> None:
            parts: dict[int, tuple[str, bytearray]] = {}
            while len(kept) < 6:
                found = peer.next()
                if isinstance(found, Data):
                    parts[found.stream][1].extend(found.piece)
                    peer.session.consumed(found.stream, len(found.piece))
                elif isinstance(found.message, m.Write):
                    parts[found.stream] = (str(found.message.path), bytearray())
                elif isinstance(found.message, m.End):
                    name, content = parts.pop(found.stream)
                    kept[name] = bytes(content)
                    peer.say(found.message, found.stream)
            peer.next()

        client = self.scripted(script, options={"offer": offer})

        async def send() -> None:
            await gatherResults([client.upload_file(self.here / str(number), "/") for number in range(6)])

        self.run_(send)
        self.assertEqual(kept, {f"/{number}": content for number, content in enumerate(contents)})

    def test_no_thread_is_left(self) -> None:
        """A client that has nothing to do has no thread, also before it is closed."""
        self.write("a", 10)
        client = self.client()

        async def send() -> int:
            await gatherResults([client.upload_file(self.here / "a", "/", str(n)) for n in range(40)])
            while threads():
                await deferLater(self.thread.reactor, 0.001)
            return len(await client.list_files("/"))

        self.assertEqual(self.run_(send), 40)


class VerbTests(BridgeCase):
    """Verbs that are the blocking client's own."""

    def test_trees(self) -> None:
        """Directories, many files and synchronisations go both ways."""
        for name in ("x/a", "x/y/b", "x/y/c"):
            (self.here / name).parent.mkdir(parents=True, exist_ok=True)
            self.write(name, 1000)
        client = self.client()
        told: list[object] = []

        async def carry() -> None:
            await client.upload_directory(self.here / "x", "/", "dir")
            await client.download_directory("/dir", self.here, "back")
            await client.make_directories(["/files", "/files/in"])
            await client.upload_files(
                "x", "/files", self.here, recursive=True, process_file=lambda path, size: path != "x/a"
            )
            await client.download_files("/files/x/y/*", self.here, "/files/x/y")
            result = await client.synchronize_upload(self.here / "x", "/same", progress=told.append)
            self.assertEqual(result.done["send"], 3)
            result = await client.synchronize_download("/same", self.here / "copy")
            self.assertEqual(result.problems, [])

        self.run_(carry)
        self.assertEqual((self.here / "back/y/b").read_bytes(), (self.here / "x/y/b").read_bytes())
        self.assertEqual((self.here / "copy/y/b").read_bytes(), (self.here / "x/y/b").read_bytes())
        self.assertEqual(sorted(os.listdir(self.root / "files/x")), ["y"])
        self.assertTrue((self.here / "b").exists())
        self.assertTrue(told)

    def test_small_files(self) -> None:
        """Small files travel together, each with its outcome."""
        files = []
        for number in range(50):
            self.write(str(number), number)
            files.append(LocalFile(str(number), str(self.here / str(number)), number, 0))
        client = self.client()

        async def send() -> tuple[int, int, int]:
            sent = [one async for one in client.upload_small(files, "/")]
            place = self.directory("place")
            wanted = [one._replace(local=str(place / one.path)) for one in files]
            came = [one async for one in client.download_small(wanted, "/")]
            read = [one async for one in client.read_files([f"/{number}" for number in range(50)])]
            return (
                sum(one.error is None for one in sent),
                sum(one.error is None for one in came),
                sum(map(len, [content for _, content in read if isinstance(content, bytes)])),
            )

        self.assertEqual(self.run_(send), (50, 50, sum(range(50))))

    def test_manifest_in_two_steps(self) -> None:
        """The server is at work between the two steps."""
        (self.root / "d").mkdir()
        client = self.client()

        async def look() -> tuple[set[str], set[str]]:
            finish = await client.begin_manifest("/")
            await client.stat("/")
            return set((await finish()).folders[""]), set((await client.manifest("/")).folders[""])

        self.assertEqual(self.run_(look), ({"d"}, {"d"}))

    def test_errors(self) -> None:
        """Errors are `Client`'s: before anything is sent, of the server, and of another writer."""
        self.write("a", 2 * MIB)
        client = self.client()

        async def send() -> list[type]:
            held: Deferred[None] = Deferred()
            first = client.upload_file(self.here / "a", "/", "b", process_chunk=lambda *_: held)
            while not os.path.exists(self.root / ".fileexport"):
                await deferLater(self.thread.reactor, 0.001)
            kinds = [
                type(await self.fails(client.upload_file(self.here / "a", "/", "b"))),
                type(await self.fails(client.upload_file(self.here / "none", "/"))),
                type(await self.fails(client.upload_file(self.here / "a", "none"))),
                type(await self.fails(client.upload_file(self.here / "a", "/", chunk_size=1))),
            ]
            held.callback(None)
            await first
            return kinds

        self.assertEqual(self.run_(send), [BusyError, SourceNotFound, ValueError, ValueError])

    def test_silent_server(self) -> None:
        """An answer that does not come is a TimeoutError in a thread, too."""

        def script(peer: Peer) -> None:
            while True:
                peer.next()

        client = self.scripted(script, timeout=100)

        async def look() -> type:
            return type(await self.fails(client.manifest("/")))

        self.assertIs(self.run_(look), TimeoutError)

    def test_cut(self) -> None:
        """An upload whose connection is cut goes on over a new one, where the server is."""
        content = self.write("a", 6 * MIB)
        kept = bytearray()

        def cut(peer: Peer) -> None:
            stream, _ = peer.hear(m.Write)
            peer.say(m.Ready(0), stream)
            while len(kept) < MIB:
                kept.extend(getattr(peer.next(), "piece", b""))

        def whole(peer: Peer) -> None:
            stream, _ = peer.hear(m.Write)
            peer.say(m.Ready(len(kept)), stream)
            rest, end = peer.content(stream)
            kept.extend(rest)
            peer.say(end, stream)
            peer.next()

        client = self.scripted(cut, whole, options={"offer": DEFAULT_OFFER})

        async def send() -> bool:
            return await client.upload_file(self.here / "a", "/")

        self.assertEqual((self.run_(send), bytes(kept) == content, self.server.connections), (True, True, 2))
