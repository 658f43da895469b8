"""Digests of files that are asked for: in threads, remembered, and never of another content."""

from __future__ import annotations

import hashlib
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

from twisted.internet.defer import Deferred, fail
from twisted.trial.unittest import SynchronousTestCase

from fileexport import digests
from fileexport.digests import SETTLED, FileDigests
from fileexport.disk.jail import Jail, Opened, View
from fileexport.errors import ChangedWhileRead, OverloadedError, PeerGone
from fileexport.paths import RelPath
from tests.helpers import Held, Immediate
from tests.http_client import HttpCase, Response
from tests.watched import Later, WatchedCalls, open_descriptors

P = ParamSpec("P")
T = TypeVar("T")

CONTENT = random.Random(8).randbytes((1 << 20) + 10)
DIGEST = hashlib.sha256(CONTENT).digest()


class Full:
    """A worker that takes no work."""

    def run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        return fail(OverloadedError())


class DigestsTests(SynchronousTestCase):
    """A file that is open, and what is known of it."""

    def setUp(self) -> None:
        root = Path(self.mktemp()) / "root"
        root.mkdir(parents=True)
        self.file = root / "file"
        self.file.write_bytes(CONTENT)
        self.watch = Later()
        jail = Jail(str(root), calls=WatchedCalls(self.watch))
        self.addCleanup(jail.close)
        self.jail = jail
        self.opened = self.open()
        self.digests = FileDigests(Immediate(), lambda: self.file.stat().st_ctime_ns + SETTLED + 1)

    def open(self) -> Opened:
        """The file as it is now."""
        opened = self.jail.open(View(RelPath()), RelPath(("file",)))
        self.addCleanup(opened.close)
        return opened

    def whole(self, algorithm: str = "sha-256", opened: Opened | None = None) -> bytes:
        """The digest of the file."""
        hashing = self.digests.whole(opened or self.opened, algorithm, lambda: False)
        return self.successResultOf(Deferred.fromCoroutine(hashing))

    def test_whole_and_part(self) -> None:
        """The digest is that of all bytes, or of those that are meant, by each algorithm."""
        self.assertEqual(self.whole(), DIGEST)
        self.assertEqual(self.whole("sha-512"), hashlib.sha512(CONTENT).digest())
        for start, stop in ((0, 0), (5, 9), (100, len(CONTENT))):
            part = self.digests.part(self.opened, "sha-256", start, stop, lambda: False)
            expected = hashlib.sha256(CONTENT[start:stop]).digest()
            self.assertEqual(self.successResultOf(Deferred.fromCoroutine(part)), expected)

    def test_remembered(self) -> None:
        """A file that did not change is read once for each algorithm, another version again."""
        self.assertIsNone(self.digests.known(self.opened, "sha-256"))
        self.whole()
        self.assertEqual(self.digests.known(self.opened, "sha-256"), DIGEST)
        self.assertIsNone(self.digests.known(self.opened, "sha-512"))
        self.file.write_bytes(b"other")
        later = self.open()
        self.assertIsNone(self.digests.known(later, "sha-256"))
        self.assertEqual(self.whole(opened=later), hashlib.sha256(b"other").digest())

    def test_not_settled(self) -> None:
        """A file that was changed just now may change again and look the same: it is not remembered."""
        self.digests = FileDigests(Immediate(), lambda: self.file.stat().st_ctime_ns + SETTLED)
        self.assertEqual(self.whole(), DIGEST)
        self.assertIsNone(self.digests.known(self.opened, "sha-256"))

    def test_bound(self) -> None:
        """So many are remembered; the one that was not asked for longest goes."""
        self.patch(digests, "MAX_REMEMBERED", 2)
        self.whole()
        self.whole("sha-512")
        self.whole()
        self.file.write_bytes(b"other")
        self.whole(opened=self.open())
        self.assertEqual(self.digests.known(self.opened, "sha-256"), DIGEST)
        self.assertIsNone(self.digests.known(self.opened, "sha-512"))

    def test_changed(self) -> None:
        """A file that changes while it is read, or was changed since it was opened, has no digest."""
        for content in (CONTENT[1:], CONTENT[:-1] + b"?", CONTENT + b"?"):
            self.file.write_bytes(content)
            failure = Deferred.fromCoroutine(self.digests.whole(self.opened, "sha-256", lambda: False))
            self.failureResultOf(failure, ChangedWhileRead)
        self.assertIsNone(self.digests.known(self.opened, "sha-256"))

    def test_by_steps(self) -> None:
        """Others have their turn in a large file, and a peer that leaves ends it."""
        self.patch(digests, "STEP", 1 << 19)
        self.patch(digests, "_PIECE", 1 << 19)
        worker = Held()
        self.digests, gone = FileDigests(worker), False
        hashing = Deferred.fromCoroutine(self.digests.whole(self.opened, "sha-256", lambda: gone))
        worker.work()
        self.assertNoResult(hashing)
        gone = True
        for _ in range(3):
            worker.work()
        self.failureResultOf(hashing, PeerGone)

    def test_overloaded(self) -> None:
        """Where no thread is to be had that is said."""
        self.digests = FileDigests(Full())
        hashing = Deferred.fromCoroutine(self.digests.whole(self.opened, "sha-256", lambda: False))
        self.failureResultOf(hashing, OverloadedError)


class AnswerTests(HttpCase):
    """The digest fields of answers."""

    #: `printf 'hello world' | openssl dgst -sha256 -binary | base64`, and of `hello`, and of nothing.
    ALL = "sha-256=:uU0nuZNNPgilLlLX2n2r+sSE7+N6U4DukIj3rOLvzek=:"
    HELLO = "sha-256=:LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ=:"
    NOTHING = "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:"

    def setUp(self) -> None:
        super().setUp()
        self.write("file", b"hello world")
        self.web = self.harness()

    def ask(self, method: str = "GET", target: str = "/file", **fields: str) -> Response:
        """The answer to who wants both digests."""
        wants = {"Want-Repr-Digest": "sha-256=1", "Want-Content-Digest": "sha-256=1"}
        more = {name.replace("_", "-"): value for name, value in fields.items()}
        return self.web.request(method, target, wants | more)

    def digests_of(self, answer: Response) -> tuple[list[str], list[str]]:
        """The fields of an answer."""
        return answer.fields("Repr-Digest"), answer.fields("Content-Digest")

    def test_unasked(self) -> None:
        """Who wants none gets none."""
        self.assertEqual(self.digests_of(self.web.get("/file")), ([], []))
        self.assertEqual(
            self.digests_of(self.ask(Want_Repr_Digest="md5=1", Want_Content_Digest="x")), ([], [])
        )

    def test_whole(self) -> None:
        """Both digests of a whole file are the same; that of no content is that of nothing."""
        answer = self.ask()
        self.assertEqual((answer.status, answer.body), (200, b"hello world"))
        self.assertEqual(self.digests_of(answer), ([self.ALL], [self.ALL]))
        self.assertEqual(self.digests_of(self.ask("HEAD")), ([self.ALL], [self.NOTHING]))
        self.assertEqual(self.digests_of(self.ask(target="/get?dir=/&name=file")), ([self.ALL], [self.ALL]))

    def test_ranges(self) -> None:
        """The content of a range has its own digest, several ranges have none."""
        answer = self.ask(Range="bytes=0-4")
        self.assertEqual((answer.status, answer.body), (206, b"hello"))
        self.assertEqual(self.digests_of(answer), ([self.ALL], [self.HELLO]))
        answer = self.ask(Range="bytes=0-0,5-5")
        self.assertEqual((answer.status, self.digests_of(answer)), (206, ([self.ALL], [])))

    def test_no_content(self) -> None:
        """What sends nothing of the file has no digests."""
        etag = self.web.get("/file").field("ETag")
        self.assertEqual(self.digests_of(self.ask(If_None_Match=etag)), ([], []))
        self.assertEqual(self.digests_of(self.ask(Range="bytes=99-")), ([], []))
        self.assertEqual(self.digests_of(self.ask(If_Match='"x"')), ([], []))

    def test_empty(self) -> None:
        """An empty file has the digests of nothing."""
        self.write("file", b"")
        self.assertEqual(self.digests_of(self.ask()), ([self.NOTHING], [self.NOTHING]))

    def test_peer_that_leaves(self) -> None:
        """Who leaves while the file is read keeps neither the file open nor a place."""
        before = open_descriptors()
        worker = Held()
        self.web = self.harness(worker=worker)
        held = open_descriptors()
        for _ in range(20):
            connection = self.web.connect()
            connection.send(b"GET /file HTTP/1.1\r\nHost: localhost\r\nWant-Repr-Digest: sha-256=1\r\n\r\n")
            connection.lose()
            worker.work()
            worker.work()
            worker.work()
        self.assertEqual(open_descriptors(), held)
        self.assertTrue(before <= held)
        self.flushLoggedErrors(PeerGone)

    def test_answer_of_put(self) -> None:
        """What is put has its digest checked, and answered."""
        right, wrong = {"Content-Digest": self.HELLO}, {"Content-Digest": self.ALL}
        answer = self.web.request("PUT", "/new", right, b"hello")
        self.assertEqual((answer.status, answer.field("Repr-Digest")), (201, self.HELLO))
        answer = self.web.request("PUT", "/new", wrong, b"hello!")
        self.assertEqual((answer.status, (self.root / "new").read_bytes()), (400, b"hello"))
        self.assertFalse(
            [name for name in os.listdir(self.root) if name not in ("file", "new", ".fileexport")]
        )
