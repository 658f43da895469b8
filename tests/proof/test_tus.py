"""tuspy and tus-js-client, as published, against a daemon that is stopped and killed under them."""

from __future__ import annotations

import asyncio
import json
import os
import random
import socket
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from tusclient.client import TusClient
from tusclient.exceptions import TusCommunicationError, TusUploadFailed
from twisted.trial.unittest import SynchronousTestCase

from tests.proof.commands import eventually
from tests.proof.counts import SOAK, Tally
from tests.proof.daemon import PATIENCE, Daemon
from tests.proof.node import MISSING, run_script
from tests.proof.process import KIB, MIB
from tests.proof.proxy import Proxy, Way, finish

#: Daemons that end under each client, and bytes of the file that is on its way then.
ENDS = 12 if SOAK else 2
BIG = 24 * MIB
#: Small files of one client while daemons end under it.
SMALL = 200 if SOAK else 20
_tally = Tally("daemons ended during uploads by tus")

#: Uploads a file by tus-js-client; its options are JSON. Says in JSON where it went, or why it failed.
_UPLOAD = """
const fs = require("fs"), tus = require("tus-js-client");
const [endpoint, path, given] = process.argv.slice(-3);
const { terminate, ...options } = JSON.parse(given);
const upload = new tus.Upload(fs.createReadStream(path), {
    endpoint, uploadSize: fs.statSync(path).size, retryDelays: Array(200).fill(50), ...options,
    onError: (error) => { console.log(JSON.stringify({ error: String(error) })); process.exit(1); },
    onSuccess: async () => {
        if (terminate) await upload.abort(true);
        console.log(JSON.stringify({ url: upload.url }));
    },
});
upload.start();
"""


class Gate(Proxy):
    """Keeps its address while the daemon behind it gets another one, and lets so many bytes up to it."""

    def __init__(self) -> None:
        super().__init__(0)
        #: Bytes that have gone up, and that may.
        self.up = 0
        self._limit = sys.maxsize
        self._moved = asyncio.Event()

    @property
    def limit(self) -> int:
        """How many bytes may go up; it is moved from another thread."""
        return self._limit

    @limit.setter
    def limit(self, count: int) -> None:
        self._limit = count
        self._loop.call_soon_threadsafe(self._moved.set)

    def follow(self, daemon: Daemon) -> None:
        """New connections go to this daemon."""
        self._target = int(daemon.url.rsplit(":", 1)[1].strip("/"))

    async def _serve(self, client: socket.socket) -> None:
        await self._join(client, self._pass)

    async def _pass(self, way: Way, source: socket.socket, target: socket.socket) -> None:
        while piece := await self._loop.sock_recv(source, 64 * KIB):
            if way is Way.UP:
                while self.up >= self.limit:
                    self._moved.clear()
                    await self._moved.wait()
                self.up += len(piece)
            await self._loop.sock_sendall(target, piece)
        finish(target)


class TusCase(SynchronousTestCase):
    """A daemon that can be ended and started again, behind an address that stays."""

    def setUp(self) -> None:
        self.base = Path(self.mktemp()).absolute()
        self.root = self.base / "root"
        self.root.mkdir(parents=True)
        self.daemon = Daemon(self.root)
        self.daemon.__enter__()
        self.addCleanup(lambda: self.daemon.kill())
        self.proxy = Gate()
        self.proxy.follow(self.daemon)
        self.proxy.__enter__()
        self.addCleanup(self.proxy.__exit__)
        self.url = f"http://127.0.0.1:{self.proxy.port}/-/uploads"
        self.random = random.Random(os.environ.get("FILEEXPORT_SEED", "tus"))

    def source(self, name: str, size: int) -> Path:
        """A file of random content beside the root."""
        path = self.base / name
        path.write_bytes(self.random.randbytes(size))
        return path

    def end(self, how: str) -> None:
        """End the daemon and start it again."""
        if how == "kill":
            self.daemon.kill()
        else:
            self.assertEqual(self.daemon.stop(), 0)
        self.assertNotIn("Traceback", self.daemon.output)
        self.daemon = Daemon(self.root)
        self.daemon.__enter__()
        self.proxy.follow(self.daemon)
        _tally.add(1, how)

    def end_while_it_comes(self, is_over: Callable[[], bool], *, stops: bool) -> None:
        """Kill the daemon again and again while more of the file is on its way, or stop it in between."""
        for number in range(ENDS):
            self.proxy.limit = self.proxy.up + self.random.randrange(BIG // (ENDS + 1))
            eventually("more of the file", lambda: self.proxy.up >= self.proxy.limit or is_over())
            self.assertFalse(is_over())
            if is_stop := stops and bool(number % 2):
                # A stop waits for the request that is under way.
                self.proxy.limit = sys.maxsize
            self.end("stop" if is_stop else "kill")
        self.proxy.limit = sys.maxsize

    def staged(self) -> list[str]:
        """What lies in staging."""
        staging = self.root / ".fileexport"
        return os.listdir(staging) if staging.exists() else []

    def assert_uploaded(self, name: str, source: Path) -> None:
        """The file is there, equal, and nothing else of it."""
        self.assertEqual((self.root / name).read_bytes(), source.read_bytes())
        self.assertEqual(self.staged(), [])


class TuspyTests(TusCase):
    """tuspy."""

    def client(self) -> TusClient:
        return TusClient(self.url)

    def test_options(self) -> None:
        """Whole, in pieces, with checksums, empty, without a name, and gone on with by its URL."""
        source, empty = self.source("source", 3 * MIB + 7), self.source("empty", 0)
        for number, options in enumerate(
            ({}, {"chunk_size": 1 * MIB}, {"chunk_size": 777 * KIB, "upload_checksum": True})
        ):
            name = f"n {number} ä"
            self.client().uploader(str(source), metadata={"filename": name}, **options).upload()
            self.assert_uploaded(name, source)
        self.client().uploader(str(empty), metadata={"filename": "empty"}).upload()
        self.assert_uploaded("empty", empty)
        first = self.client().uploader(str(source), chunk_size=MIB)
        first.upload(stop_at=MIB)
        assert first.url is not None
        second = self.client().uploader(str(source), url=first.url, chunk_size=MIB)
        self.assertEqual(second.offset, MIB)
        second.upload()
        self.assert_uploaded(first.url.rsplit("/", 1)[1], source)

    def test_ends(self) -> None:
        """It goes on by itself after each end, and what comes out is equal."""
        source = self.source("source", BIG)
        uploader = self.client().uploader(
            str(source),
            metadata={"filename": "big"},
            chunk_size=BIG // 8,
            retries=200,
            retry_delay=0.25,
            upload_checksum=True,
        )
        uploader.set_url(uploader.create_url())
        with ThreadPoolExecutor() as pool:
            uploading = pool.submit(uploader.upload)
            self.end_while_it_comes(uploading.done, stops=True)
            uploading.result(PATIENCE)
        self.assert_uploaded("big", source)

    def test_small_files(self) -> None:
        """Whatever was acknowledged before a kill is whole; the others are whole or absent."""
        sources = [self.source(f"small {number}", 3 * KIB) for number in range(SMALL)]
        acknowledged: list[Path] = []

        def upload() -> None:
            for source in sources:
                uploader = self.client().uploader(str(source), metadata={"filename": source.name})
                try:
                    uploader.upload()
                except (TusCommunicationError, TusUploadFailed):
                    return
                acknowledged.append(source)

        for _ in range(ENDS):
            with ThreadPoolExecutor() as pool:
                uploading = pool.submit(upload)
                wanted = self.random.randrange(1, SMALL)
                eventually("small files", partial(lambda wanted: len(acknowledged) >= wanted, wanted))
                self.end("kill")
                uploading.result(PATIENCE)
            for source in acknowledged:
                self.assertEqual((self.root / source.name).read_bytes(), source.read_bytes())
            for path in self.root.iterdir():
                if path.name != ".fileexport":
                    self.assertEqual(path.read_bytes(), (self.base / path.name).read_bytes())
                    path.unlink()
            acknowledged.clear()


class TusJsClientTests(TusCase):
    """tus-js-client, in node."""

    skip = MISSING

    def upload(self, source: Path, name: str, **options: Any) -> dict[str, str]:
        """Upload a file to its end; what the client said."""
        options = {"metadata": {"filename": name}} | options
        done = run_script(_UPLOAD, self.url, str(source), json.dumps(options), patience=4 * PATIENCE)
        self.assertEqual(done.stderr, "")
        found: dict[str, str] = json.loads(done.stdout)
        return found

    def test_options(self) -> None:
        """Whole, in pieces, with the first of it in the first request, by POST only, empty, and forgotten."""
        source, empty = self.source("source", 3 * MIB + 7), self.source("empty", 0)
        ways: tuple[dict[str, Any], ...] = (
            {},
            {"chunkSize": MIB},
            {"uploadDataDuringCreation": True},
            {"uploadDataDuringCreation": True, "chunkSize": MIB},
            {"overridePatchMethod": True, "chunkSize": MIB},
        )
        for number, options in enumerate(ways):
            with self.subTest(options):
                self.assertIn("url", self.upload(source, f"n {number} ä", **options))
                self.assert_uploaded(f"n {number} ä", source)
        self.assertIn("url", self.upload(empty, "empty"))
        self.assert_uploaded("empty", empty)
        url = self.upload(source, "forgotten", terminate=True)["url"]
        again = self.upload(source, "again", uploadUrl=url)["url"]
        self.assertNotEqual(again, url)
        self.assert_uploaded("again", source)
        refused = self.upload(source, "again", retryDelays=[])
        self.assertIn("it exists already", refused["error"])

    def test_ends(self) -> None:
        """In one request, and in many: it goes on by itself after each end, and what comes out is equal."""
        pieces: dict[str, int] = {"chunkSize": BIG // 8}
        for number, options in enumerate(({}, pieces) if SOAK else ({},)):
            source = self.source("source", BIG)
            with ThreadPoolExecutor() as pool:
                uploading = pool.submit(self.upload, source, f"big {number}", **options)
                self.end_while_it_comes(uploading.done, stops=bool(options))
                self.assertIn("url", uploading.result(4 * PATIENCE))
            self.assert_uploaded(f"big {number}", source)
