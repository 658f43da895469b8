"""The threads of a bridge: how many, when they let go, and what happens where there is none."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable

from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.task import deferLater

from fileexport.client.deferred import bridge
from tests.async_case import BridgeCase, threads
from tests.test_examples import environment


class ThreadTests(BridgeCase):
    """The threads themselves."""

    def test_cancelled_at_work(self) -> None:
        """What is cancelled fails when its thread has let go, however often it is cancelled."""
        client = self.client()
        may_end = threading.Event()
        self.addCleanup(may_end.set)
        done: list[str] = []

        async def cancel() -> list[str]:
            at_work: Deferred[None] = Deferred()

            def work() -> None:
                self.thread.reactor.callFromThread(at_work.callback, None)
                may_end.wait()
                done.append("the last step")

            begun = client._bridge.run(work)
            await at_work
            begun.cancel()
            begun.cancel()
            self.assertFalse(begun.called)
            may_end.set()
            self.assertIsInstance(await self.fails(begun), CancelledError)
            return done

        self.assertEqual(self.run_(cancel), ["the last step"])

    def test_cancelled_between_local_steps(self) -> None:
        """A synchronisation that is cancelled soon stops to remove files here; after that it touches none."""
        (self.root / "d").mkdir()
        for name in ("keep", *map(str, range(6000))):
            (self.here / name).touch()
        (self.root / "d" / "keep").touch()
        client = self.client()

        def left() -> int:
            return len(os.listdir(self.here))

        async def cancel() -> tuple[int, int]:
            begun = client.synchronize_download("/d", self.here, delete=True, max_delete=6000)
            while left() > 5500 and not begun.called:
                await deferLater(self.thread.reactor, 0.001)
            begun.cancel()
            self.assertIsInstance(await self.fails(begun), CancelledError)
            before = left()
            await client.close()
            return before, left()

        before, after = self.run_(cancel)
        self.assertEqual(before, after)
        self.assertGreater(after, 1)

    def test_callbacks_that_transfer(self) -> None:
        """Callbacks may wait for further transfers, in more calls than there are threads at work."""
        self.patch(bridge, "MAX_THREADS", 2)
        self.write("a", 1000)
        client = self.client()

        def further(name: str) -> Callable[..., Deferred[bool]]:
            return lambda *_: client.upload_file(self.here / "a", "/", name)

        async def send() -> set[bool]:
            begun = [
                client.upload_file(self.here / "a", "/", f"{n}", None, further(f"{n}+")) for n in range(5)
            ]
            return set(await gatherResults(begun))

        self.assertEqual((self.run_(send), len(self.there)), ({True}, 10))

    def test_too_many_such_callbacks(self) -> None:
        """Where callbacks hold all threads that there may be, what they wait for fails, and says why."""
        self.patch(bridge, "_MAX_ALL", 2)
        self.write("a", 1000)
        client = self.client(timeout=300)

        def further(*_: object) -> Deferred[bool]:
            return client.upload_file(self.here / "a", "/", "further")

        async def send() -> list[str]:
            begun = [client.upload_file(self.here / "a", "/", f"{n}", None, further) for n in range(2)]
            errors = [await self.fails(one) for one in begun]
            self.assertEqual({type(error) for error in errors}, {TimeoutError})
            await client.upload_file(self.here / "a", "/", "later")
            return list(map(str, errors))

        told = self.run_(send)
        self.assertIn("2 callbacks have been waiting for 0.3 s", told[0])
        self.assertEqual(self.there, {"later"})

    def test_no_thread_can_start(self) -> None:
        """Where no thread can be started, the call fails; the client closes, and works again later."""
        self.write("a", 1000)
        client = self.client()
        start = threading.Thread.start

        def refuse(thread: threading.Thread) -> None:
            if thread.name == "fileexport-bridge":
                raise RuntimeError("can't start new thread")
            start(thread)

        async def send() -> type:
            patched = self.patch(threading.Thread, "start", refuse)
            error = await self.fails(client.upload_file(self.here / "a", "/"))
            patched.restore()
            await client.close()
            await client.upload_file(self.here / "a", "/")
            return type(error)

        self.assertEqual((self.run_(send), self.there), (RuntimeError, {"a"}))

    def test_close_and_threads(self) -> None:
        """No thread is alive when the client has closed."""
        client = self.client()

        async def close() -> int:
            left = 0
            for _ in range(200):
                await client._bridge.run(lambda: None)
                await client.close()
                left += threads()
            return left

        self.assertEqual(self.run_(close), 0)

    def test_end_of_program(self) -> None:
        """A program ends although its client was never closed and a transfer waits for the reactor."""
        program = (
            "from fileexport import AsyncClient\n"
            "client = AsyncClient('127.0.0.1', 1, 'fex1_some-token-of-many-characters')\n"
            f"client.upload_file({str(self.here / 'a')!r}, '/')\n"
        )
        self.write("a", 10)
        done = subprocess.run(
            [sys.executable, "-c", program], env=environment(), timeout=60, capture_output=True
        )
        self.assertEqual((done.returncode, done.stderr), (0, b""))
