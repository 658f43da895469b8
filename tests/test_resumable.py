"""Uploads that outlive their connections: whose turn it is, what stays open, what a stop leaves."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

from twisted.internet.defer import Deferred, fail
from twisted.internet.task import Clock

from fileexport import resumable as limits
from fileexport import resumable_files as files_limits
from fileexport.disk.calls import Calls
from fileexport.disk.uploads_store import KEPT_TIME, UploadRow
from fileexport.errors import BusyError, OverloadedError, PeerGone
from fileexport.resumable import Client, Resumable, Standing, WrongOffset
from fileexport.resumable_files import Gone
from fileexport.tokens import Principal
from tests.helpers import Immediate
from tests.resumable_case import ResumableCase
from tests.uploads_case import ALL, BOB, CONTENT, P
from tests.watched import open_descriptors

P_ = ParamSpec("P_")
T = TypeVar("T")


class Peer:
    """A client with a connection; what it sends, it sends when it is told to."""

    def __init__(self, uploads: Resumable, who: Principal = ALL) -> None:
        self._uploads = uploads
        self._take: Callable[[bytes], None] | None = None
        self._sent: Deferred[None] | None = None
        self.missing: int | None = None
        self.is_gone = False
        self.client = Client(who, f"{who.name} here", self.cut, lambda: self.is_gone)

    async def receive(self, take: Callable[[bytes], None], missing: int) -> None:
        """What `Resumable.append` is given."""
        self._take, self.missing, self._sent = take, missing, Deferred()
        await self._sent

    def append(self, row: UploadRow, offset: int, check: Any = None) -> Deferred[Standing]:
        """Ask to append; nothing is sent yet."""
        return Deferred.fromCoroutine(self._uploads.append(self.client, row.id, offset, check, self.receive))

    @property
    def has_turn(self) -> bool:
        """Whether what it sends is wanted."""
        return self._take is not None

    def send(self, content: bytes, *, ends: bool = False) -> None:
        """Send a piece, the last one where it `ends`."""
        assert self._take is not None
        self._take(content)
        if ends:
            self.end()

    def end(self, problem: Exception | None = None) -> None:
        """The body ends, or breaks."""
        sent, self._sent, self._take = self._sent, None, None
        assert sent is not None
        if problem is None:
            sent.callback(None)
        else:
            sent.errback(problem)

    def cut(self) -> None:
        """Its connection is broken: nothing that it sends arrives any more."""
        self.is_gone = True
        if self._sent is not None:
            self.end(PeerGone())


class Never:
    """A check that always fails."""

    def update(self, piece: bytes) -> None:
        """Take a piece."""

    def check(self) -> None:
        raise ZeroDivisionError


class UploadsCase(ResumableCase):
    """Uploads in memory; the clock stands still."""

    def setUp(self) -> None:
        super().setUp()
        self.clock = Clock()
        self.uploads = Resumable(self.clock, self.exports, lambda: self.store, Immediate())
        self.addCleanup(self.stop)

    def stop(self) -> None:
        """All are let go of, and nothing waits."""
        self.run_now(self.uploads.stop())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def run_now(self, answer: Coroutine[Any, Any, Any]) -> Any:
        return self.successResultOf(Deferred.fromCoroutine(answer))

    def failing(self, answer: Coroutine[Any, Any, Any], kind: type[Exception]) -> Any:
        return self.failureResultOf(Deferred.fromCoroutine(answer), kind).value

    def peer(self, who: Principal = ALL) -> Peer:
        return Peer(self.uploads, who)

    def create(self, name: str = "new", **more: Any) -> UploadRow:
        row: UploadRow = self.run_now(self.uploads.create(self.peer().client, self.wish(name, **more)))
        return row

    def offset(self, row: UploadRow) -> int:
        standing: Standing = self.run_now(self.uploads.standing(self.peer().client, row.id))
        return standing.offset

    def send(self, row: UploadRow, offset: int, content: bytes) -> Standing:
        """Append this much and no more."""
        peer = self.peer()
        asked = peer.append(row, offset)
        peer.send(content, ends=True)
        return self.successResultOf(asked)

    def is_open(self) -> bool:
        """Whether staged content is open in this process."""
        paths = [os.readlink(f"/proc/self/fd/{one}") for one in open_descriptors()]
        return any(path.startswith(str(self.root.absolute())) and "/part-" in path for path in paths)


class PartTests(UploadsCase):
    """Bytes that come, and what is said of them."""

    def test_parts(self) -> None:
        """Part after part, until the file is there."""
        row = self.create()
        self.assertEqual(self.offset(row), 0)
        for start in range(0, 10, 3):
            content = CONTENT[start : start + 3]
            standing = self.send(row, start, content)
            self.assertEqual(standing.offset, start + len(content))
            self.assertEqual(self.offset(row), standing.offset)
        self.assertTrue(standing.row.done)
        self.assertEqual((self.root / "d/new").read_bytes(), CONTENT)
        self.assertFalse(self.is_open())

    def test_while_it_comes(self) -> None:
        """What has come is counted while more comes."""
        row, peer = self.create(), self.peer()
        asked = peer.append(row, 0)
        self.assertEqual(peer.missing, 10)
        peer.send(CONTENT[:4])
        self.assertEqual(self.offset(row), 4)
        [listed] = self.run_now(self.uploads.list(ALL, P("")))
        self.assertEqual(listed.offset, 4)
        peer.send(CONTENT[4:7], ends=True)
        self.assertEqual(self.successResultOf(asked).offset, 7)

    def test_wrong_offset(self) -> None:
        """Another offset is refused with the right one, and nothing is asked of the body."""
        row = self.create()
        self.send(row, 0, CONTENT[:4])
        for offset in (0, 3, 5, 10, 11):
            peer = self.peer()
            refused = self.failureResultOf(peer.append(row, offset), WrongOffset).value
            self.assertEqual((refused.offset, peer.has_turn), (4, False))
        self.assertEqual(self.offset(row), 4)

    def test_done(self) -> None:
        """What is done takes nothing more; its end is said again to who asks for it."""
        row = self.create()
        self.send(row, 0, CONTENT)
        self.assertEqual(self.successResultOf(self.peer().append(row, 10)).offset, 10)
        refused = self.failureResultOf(self.peer().append(row, 4), WrongOffset).value
        self.assertEqual(refused.offset, 10)
        self.assertEqual(self.offset(row), 10)

    def test_checked(self) -> None:
        """Bytes that may have to go again do not count before their end; when they went, it goes on."""
        row, peer = self.create(), self.peer()
        self.send(row, 0, CONTENT[:2])
        asked = peer.append(row, 2, Never())
        peer.send(b"xxx")
        self.assertEqual(self.offset(row), 2)
        peer.end()
        self.failureResultOf(asked, ZeroDivisionError)
        self.assertEqual(self.offset(row), 2)
        self.send(row, 2, CONTENT[2:])
        self.assertEqual((self.root / "d/new").read_bytes(), CONTENT)

    def test_broken_off(self) -> None:
        """What came before a break stays."""
        row, peer = self.create(), self.peer()
        asked = peer.append(row, 0)
        peer.send(CONTENT[:4])
        peer.cut()
        self.failureResultOf(asked, PeerGone)
        self.assertEqual(self.offset(row), 4)

    def test_others(self) -> None:
        """Who is not its owner finds nothing, whatever is asked, and disturbs nothing."""
        row, peer, bob = self.create(), self.peer(), self.peer(BOB)
        asked = peer.append(row, 0)
        peer.send(CONTENT[:4])
        self.failing(self.uploads.standing(bob.client, row.id), FileNotFoundError)
        self.failureResultOf(bob.append(row, 4), FileNotFoundError)
        self.failing(self.uploads.terminate(bob.client, row.id), FileNotFoundError)
        self.assertEqual(self.run_now(self.uploads.list(BOB, P(""))), [])
        peer.send(CONTENT[4:], ends=True)
        self.assertTrue(self.successResultOf(asked).row.done)

    def test_expired(self) -> None:
        """Who comes too late is told so."""
        row = self.create()
        self.time += KEPT_TIME
        client = self.peer().client
        self.failing(self.uploads.standing(client, row.id), Gone)
        self.failureResultOf(self.peer().append(row, 0), Gone)
        self.failing(self.uploads.terminate(client, row.id), Gone)

    def test_not_expired_while_in_use(self) -> None:
        """What is written to for days is not too late."""
        row, peer = self.create(), self.peer()
        asked = peer.append(row, 0)
        self.time += KEPT_TIME
        self.successResultOf(self.uploads.recover())
        self.assertEqual(self.offset(row), 0)
        peer.send(CONTENT, ends=True)
        self.assertTrue(self.successResultOf(asked).row.done)

    def test_whole_but_not_done(self) -> None:
        """All that is missing is its name: whoever asks how far it is gets it."""
        row = self.create()
        opened = self.exports.begin_upload(
            ALL, P("d/new"), size=10, replace=False, source=b"tus " + row.id.encode(), holder=""
        )
        opened.write(CONTENT)
        opened.suspend()
        self.assertEqual(self.offset(row), 10)
        self.assertEqual((self.root / "d/new").read_bytes(), CONTENT)
        self.assertEqual(self.left(), [])


class TurnTests(UploadsCase):
    """One at a time; who comes again is the one that counts."""

    def test_cut(self) -> None:
        """The connection that was first is broken, and the second goes on behind its last byte."""
        row, first, second = self.create(), self.peer(), self.peer()
        lost = first.append(row, 0)
        first.send(CONTENT[:4])
        asked = second.append(row, 4)
        self.failureResultOf(lost, PeerGone)
        self.assertEqual((first.is_gone, second.has_turn), (True, True))
        second.send(CONTENT[4:], ends=True)
        self.assertTrue(self.successResultOf(asked).row.done)
        self.assertEqual((self.root / "d/new").read_bytes(), CONTENT)

    def test_waiting(self) -> None:
        """The second waits until the first has ended; a third takes the place of the second."""
        row, first, second, third = self.create(), self.peer(), self.peer(), self.peer()
        # It is told, and something of it is still being written.
        first.client = first.client._replace(cut=lambda: None)
        lost = first.append(row, 0)
        waiting, asked = second.append(row, 2), third.append(row, 2)
        self.failureResultOf(waiting, BusyError)
        self.assertNoResult(asked)
        first.send(CONTENT[:2])
        first.end(PeerGone())
        self.failureResultOf(lost, PeerGone)
        third.send(CONTENT[2:], ends=True)
        self.assertTrue(self.successResultOf(asked).row.done)

    def test_patience(self) -> None:
        """Who waits too long is told that it is busy; the first goes on."""
        row, first, second = self.create(), self.peer(), self.peer()
        first.client = first.client._replace(cut=lambda: None)
        asked, waiting = first.append(row, 0), second.append(row, 0)
        self.clock.advance(limits.PATIENCE - 1)
        self.assertNoResult(waiting)
        self.clock.advance(1)
        self.failureResultOf(waiting, BusyError)
        first.send(CONTENT, ends=True)
        self.assertTrue(self.successResultOf(asked).row.done)

    def test_who_left_while_waiting(self) -> None:
        """Who is gone when its turn comes gets nothing, and the next one does."""
        row, first, second = self.create(), self.peer(), self.peer()
        first.client = first.client._replace(cut=lambda: None)
        asked, waiting = first.append(row, 0), second.append(row, 0)
        second.is_gone = True
        first.send(CONTENT[:4], ends=True)
        self.assertEqual(self.successResultOf(asked).offset, 4)
        self.failureResultOf(waiting, PeerGone)
        self.assertEqual(self.send(row, 4, CONTENT[4:]).offset, 10)

    def test_terminated(self) -> None:
        """Who forgets it breaks whoever writes; nothing of it is left."""
        row, peer = self.create(), self.peer()
        lost = peer.append(row, 0)
        peer.send(CONTENT[:4])
        self.run_now(self.uploads.terminate(self.peer().client, row.id))
        self.failureResultOf(lost, PeerGone)
        self.assertEqual(self.left(), [])
        self.failing(self.uploads.standing(self.peer().client, row.id), FileNotFoundError)
        self.failing(self.uploads.terminate(self.peer().client, row.id), FileNotFoundError)

    def test_same_path(self) -> None:
        """While one is open no other upload writes its path; when it is idle long enough another can."""
        row, other = self.create(), self.create()
        self.send(row, 0, CONTENT[:4])
        self.failureResultOf(self.peer().append(other, 0), BusyError)
        self.clock.advance(limits.IDLE_TIME)
        self.assertTrue(self.send(other, 0, b"x" * 10).row.done)
        self.assertEqual((self.root / "d/new").read_bytes(), b"x" * 10)


class OpenTests(UploadsCase):
    """What stays open, and until when."""

    def test_idle(self) -> None:
        """It is open between two parts, for a while; then it goes on all the same."""
        row = self.create()
        self.send(row, 0, CONTENT[:4])
        self.clock.advance(limits.IDLE_TIME - 1)
        self.assertTrue(self.is_open())
        self.send(row, 4, CONTENT[4:6])
        self.clock.advance(limits.IDLE_TIME - 1)
        self.assertTrue(self.is_open())
        self.clock.advance(1)
        self.assertFalse(self.is_open())
        self.assertEqual(self.offset(row), 6)
        self.send(row, 6, CONTENT[6:])
        self.assertEqual((self.root / "d/new").read_bytes(), CONTENT)

    def test_not_idle(self) -> None:
        """Who sends slowly is not idle."""
        row, peer = self.create(), self.peer()
        asked = peer.append(row, 0)
        for byte in CONTENT:
            self.clock.advance(limits.IDLE_TIME)
            peer.send(bytes([byte]))
        peer.end()
        self.assertTrue(self.successResultOf(asked).row.done)

    def test_many(self) -> None:
        """Of too many the one that was idle longest is put away; where none is, no other begins."""
        self.patch(limits, "MAX_OPEN", 2)
        rows = [self.create(name) for name in "123"]
        peers = [self.peer() for _ in rows]
        asked = [peers[0].append(rows[0], 0)]
        self.send(rows[1], 0, CONTENT[:1])
        asked.append(peers[2].append(rows[2], 0))
        self.assertTrue(peers[2].has_turn)
        self.assertEqual(self.offset(rows[1]), 1)
        self.failureResultOf(self.peer().append(rows[1], 1), OverloadedError)
        for peer in (peers[0], peers[2]):
            peer.send(CONTENT, ends=True)
        self.assertTrue(all(self.successResultOf(one).row.done for one in asked))
        self.assertTrue(self.send(rows[1], 1, CONTENT[1:]).row.done)

    def test_idle_ones_make_way(self) -> None:
        """For one too many the first goes of those that nobody writes to now, open or not."""
        self.patch(files_limits, "MAX_OWN", 3)
        closed, first, second = (self.create(name) for name in "123")
        writer = self.peer()
        self.send(closed, 0, CONTENT[:3])
        self.clock.advance(limits.IDLE_TIME)
        for row in (first, second):
            self.send(row, 0, CONTENT[:4])
        self.create("4")
        self.failing(self.uploads.standing(writer.client, closed.id), FileNotFoundError)
        asked = writer.append(first, 4)
        self.create("5")
        self.failing(self.uploads.standing(writer.client, second.id), FileNotFoundError)
        self.assertEqual(len(self.left()), 2)
        writer.send(CONTENT[4:], ends=True)
        self.assertTrue(self.successResultOf(asked).row.done)
        self.assertEqual(self.left(), [])
        self.assertTrue(self.send(self.create("3"), 0, CONTENT).row.done)

    def test_all_are_written(self) -> None:
        """Where its owner writes to as many as there may be, no other begins."""
        self.patch(files_limits, "MAX_OWN", 1)
        row, writer = self.create(), self.peer()
        asked = writer.append(row, 0)
        self.failing(self.uploads.create(self.peer().client, self.wish("other")), OverloadedError)
        writer.send(CONTENT, ends=True)
        self.assertTrue(self.successResultOf(asked).row.done)

    def test_stopped(self) -> None:
        """A stop keeps what has come, and breaks who still sends; another daemon goes on."""
        row, idle, peer = self.create("1"), self.create("2"), self.peer()
        self.send(idle, 0, CONTENT[:3])
        lost = peer.append(row, 0)
        peer.send(CONTENT[:4])
        self.stop()
        self.failureResultOf(lost, PeerGone)
        self.assertFalse(self.is_open())
        self.uploads = Resumable(self.clock, self.exporting(), lambda: self.store, Immediate())
        self.assertEqual([self.offset(row), self.offset(idle)], [4, 3])
        self.send(row, 4, CONTENT[4:])
        self.send(idle, 3, CONTENT[3:])
        self.assertEqual(sorted(os.listdir(self.root / "d")), ["1", "2", "file"])

    def test_write_that_fails(self) -> None:
        """An error of the disk is told; the upload is let go of, and goes on when there is room again."""
        row, peer = self.create(), self.peer()
        self.send(row, 0, CONTENT[:4])
        asked = peer.append(row, 4)
        peer.end(OSError(errno.ENOSPC, "full"))
        self.assertEqual(self.failureResultOf(asked, OSError).value.errno, errno.ENOSPC)
        self.assertEqual(self.offset(row), 4)
        self.assertTrue(self.send(row, 4, CONTENT[4:]).row.done)

    def test_full_in_the_midst(self) -> None:
        """What was acknowledged stays when the disk is full, however much of the next part was written."""

        class Full(Calls):
            room = sys.maxsize

            def write(self, descriptor: int, data: bytes | memoryview) -> int:
                if not self.room:
                    raise OSError(errno.ENOSPC, "full")
                written = super().write(descriptor, data[: self.room])
                self.room -= written
                return written

        calls = Full()
        self.uploads = Resumable(self.clock, self.exporting(calls=calls), lambda: self.store, Immediate())
        for room in (0, 1, 3):
            row, peer = self.create(f"of {room}"), self.peer()
            self.send(row, 0, CONTENT[:4])
            calls.room = room
            asked = peer.append(row, 4)
            full = self.assertRaises(OSError, peer.send, CONTENT[4:])
            peer.end(full)
            self.assertEqual(self.failureResultOf(asked, OSError).value.errno, errno.ENOSPC)
            self.assertEqual(self.offset(row), 4)
            calls.room = sys.maxsize
            self.assertTrue(self.send(row, 4, CONTENT[4:]).row.done)
            self.assertEqual((self.root / f"d/of {room}").read_bytes(), CONTENT)

    def test_no_thread(self) -> None:
        """Where no thread is to be had it is let go of all the same, and what has come is kept."""
        row, peer = self.create(), self.peer()
        asked = peer.append(row, 0)
        peer.send(CONTENT[:4])
        self.uploads._disk = _FewThreads()
        peer.end()
        self.failureResultOf(asked, OverloadedError)
        self.assertFalse(self.is_open())
        self.uploads._disk = Immediate()
        self.assertEqual(self.offset(row), 4)

    def test_no_thread_to_forget(self) -> None:
        """Where no thread is to be had any more it is forgotten all the same, and its name is free."""
        row = self.create()
        self.send(row, 0, CONTENT[:4])
        # The rows are looked at, and then there is no thread.
        self.uploads._disk = worker = _FewThreads(2)
        self.run_now(self.uploads.terminate(self.peer().client, row.id))
        self.assertEqual(worker.left, -1)
        self.uploads._disk = Immediate()
        self.assertEqual([self.is_open(), self.left(), self.store.unfinished("alice")], [False, [], []])
        self.assertTrue(self.send(self.create(), 0, CONTENT).row.done)

    def test_taken_back(self) -> None:
        """What its client has learnt nothing of is gone at once, thread or no thread."""
        for threads in (9, 0):
            row = self.create()
            self.send(row, 0, CONTENT[:4])
            self.uploads._disk = _FewThreads(threads)
            self.run_now(self.uploads.drop(self.peer().client, row))
            self.uploads._disk = Immediate()
            self.assertEqual([self.is_open(), self.left(), self.store.unfinished("alice")], [False, [], []])


class _FewThreads(Immediate):
    """A pool that has threads for so many calls."""

    def __init__(self, left: int = 0) -> None:
        self.left = left

    def run(self, function: Callable[P_, T], /, *args: P_.args, **kwargs: P_.kwargs) -> Deferred[T]:
        self.left -= 1
        return super().run(function, *args, **kwargs) if self.left >= 0 else fail(OverloadedError())
