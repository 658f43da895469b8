"""Async iterators over blocking ones: how far they go ahead, and how they end."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from typing import Any

from twisted.internet.defer import CancelledError
from twisted.internet.task import deferLater

from fileexport.client.deferred import bridge
from fileexport.client.deferred.iterating import Results, Stepping
from tests.async_case import BridgeCase, threads

KIB = 1 << 10


class SteppingTests(BridgeCase):
    """The items of a blocking iterator."""

    def files(self, count: int, size: int = 0) -> list[str]:
        """So many files at the server; their paths."""
        for number in range(count):
            (self.root / str(number)).write_bytes(bytes(size))
        return [f"/{number}" for number in range(count)]

    async def paused(self, results: Results[Any]) -> Stepping[Any]:
        """What is behind an iterator, once it has found enough."""
        stepping = results._engine
        assert isinstance(stepping, Stepping)
        while stepping._turn is not None:
            await deferLater(self.thread.reactor, 0.001)
        return stepping

    def test_bytes_ahead(self) -> None:
        """What is read ahead of who takes it is a MiB, and goes on when it is taken."""
        paths = self.files(60, 64 * KIB)
        client = self.client()

        async def read() -> tuple[int, int]:
            results = client.read_files(paths)
            await results.__anext__()
            stepping = await self.paused(results)
            held = sum(len(content) for _, content in stepping._items)
            return held, len([one async for one in results])

        held, rest = self.run_(read)
        self.assertLessEqual(held, 1024 * KIB)
        self.assertEqual(rest, 59)

    def test_cancelled(self) -> None:
        """An item that is cancelled fails when its thread has let go, and the iterator has ended then."""
        client = self.client()
        may_end = threading.Event()
        self.addCleanup(may_end.set)
        steps: list[str] = []

        def paths() -> Iterator[str]:
            steps.append("begun")
            may_end.wait()
            steps.append("the last step")
            yield from map(str, range(1_000_000))

        async def cancel() -> None:
            results = client.hash_files(paths())
            item = results.__anext__()
            while not steps:
                await deferLater(self.thread.reactor, 0.001)
            item.cancel()
            self.assertFalse(item.called)
            may_end.set()
            self.assertIsInstance(await self.fails(item), CancelledError)
            self.assertEqual(steps, ["begun", "the last step"])
            self.assertIsInstance(await self.fails(results.__anext__()), StopAsyncIteration)

        self.run_(cancel)

    def test_forgotten(self) -> None:
        """Iterators that are forgotten when their client closes leave nothing, and nothing is logged."""
        self.patch(bridge, "MAX_THREADS", 1)
        paths = self.files(1500)
        client = self.client()
        may_end = threading.Event()
        self.addCleanup(may_end.set)

        async def forget() -> None:
            results = client.hash_files(paths)
            await results.__anext__()
            await self.paused(results)
            # While no thread is free to close it.
            client._bridge.run(may_end.wait).addErrback(lambda failure: failure.trap(CancelledError))
            del results
            await deferLater(self.thread.reactor, 0.001)
            closed = client.close()
            may_end.set()
            await closed

        self.run_(forget)
        gc.collect()
        self.thread.call(lambda: None)
        self.assertEqual((self.flushLoggedErrors(), threads()), ([], 0))
