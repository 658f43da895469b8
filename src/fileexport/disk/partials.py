"""A file that is written from its beginning, hashed, and can be continued after a break.

It is staged like any other file. One that can be continued has a journal beside it: how many bytes of it
were written, and their hash; for a loss of power, the same of those that were flushed. The bytes are read and
hashed again before that is believed, so a journal can lie without harm. See `keeping` for its name.
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from blake3 import blake3

from fileexport.disk.calls import Calls
from fileexport.disk.journals import FLUSHED, NEWEST, Journal
from fileexport.disk.staging import Identity, Staged, identity_of
from fileexport.errors import ChangedWhileRead

#: Names in staging of what can be continued, and of its journal: the rest of both is the same.
KEPT, JOURNAL = "part-", "mark-"
#: The size of a file of which nobody said how long it will be.
UNKNOWN_SIZE = sys.maxsize
#: Bytes between two notes in the journal, between two that are flushed, and between two looks at the free
#: space.
_NOTE_EVERY, _FLUSH_EVERY, _LOOK_EVERY = 2 << 20, 32 << 20, 64 << 20
#: Bytes that are read at once when a partial is continued.
_PIECE = 1 << 20
#: And when another file is copied: they stay in the processor's cache until they are hashed and written.
_COPIED = 512 << 10


def partial_of(journal: str) -> str:
    """The name of the partial that a journal of this name belongs to."""
    return KEPT + journal.removeprefix(JOURNAL)


class Mark(NamedTuple):
    """Bytes that were written, and the hash that has seen them: exchanged in one step."""

    offset: int
    hasher: blake3


class Partial:
    """A file that is being written; `hasher` has seen the `offset` bytes that are there.

    `size` is what was announced, or `UNKNOWN_SIZE`. Not thread-safe; one writer. It ends by `commit`,
    `suspend` or `discard`, and must. After whatever `write` raised it is never committed.
    """

    def __init__(
        self, calls: Calls, staged: Staged, journal: Journal | None, size: int, durable: bool
    ) -> None:
        self._calls = calls
        self._staged = staged
        self._journal = journal
        self._durable = durable
        #: Whether a write did not come to its end; and whether the disk said so: then it may have lost more.
        self.is_broken = False
        self._is_lost = False
        self.size = size
        self._seen = Mark(0, blake3())
        self._noted = self._flushed = 0
        self._looked = 0
        #: Where content begins that is not believed yet: the journal does not hear of it.
        self._mark: Mark | None = None

    @property
    def offset(self) -> int:
        """Bytes that are there."""
        return self._seen.offset

    @property
    def hasher(self) -> blake3:
        """The hash of these bytes."""
        return self._seen.hasher

    @property
    def descriptor(self) -> int:
        """The staged file's; -1 after the end."""
        return self._staged.descriptor

    @property
    def identity(self) -> Identity:
        """The staged file's, which is that of the committed one. Raises `OSError` after the end."""
        return identity_of(self._calls, self._staged.descriptor)

    def write(self, data: bytes | memoryview) -> None:
        """Append all of `data` and hash it. Raises `OSError`, ENOSPC also where only the reserve is left.

        The global lock is free meanwhile.
        """
        self._check_whole()
        self.is_broken = True
        offset, hasher = self._seen
        if offset + len(data) - self._looked >= _LOOK_EVERY:
            self._looked = offset
            self.require_room()
        # A signal may end this anywhere: what was seen before is there then, and can be noted.
        hasher = hasher.copy()
        try:
            self._staged.write(data)
            hasher.update(data)
            self._seen = Mark(offset + len(data), hasher)
            if self._mark is None and self.offset - self._noted >= _NOTE_EVERY:
                self._note_now()
        except OSError:
            self._lose()
            raise
        self.is_broken = False

    def _note_now(self) -> None:
        if self._journal is not None:
            self._note(self._journal, flush=self.offset - self._flushed >= _FLUSH_EVERY)

    def mark(self) -> Mark:
        """What comes from now on is not believed until `accept`: whatever happens, none of it is continued.

        Raises `ValueError` where what came since another mark is neither accepted nor gone.
        """
        if self._mark is not None:
            raise ValueError("content behind another mark is not accepted yet")
        self._mark = self._seen
        return self._mark

    def accept(self) -> None:
        """Believe what is there; the journal says so, and both are flushed, with a mark or without.

        Of a whole file the journal just says so: its commit flushes it. Raises `OSError`, as `write` does.
        """
        self._check_whole()
        self._mark = None
        is_whole = self.offset == self.size
        if self._journal is None or self.offset == (self._noted if is_whole else self._flushed):
            return
        self.is_broken = True
        try:
            if is_whole:
                self._note(self._journal, flush=False)
            else:
                self._flush(self._journal)
        except OSError:
            self._lose()
            raise
        self.is_broken = False

    def rewind(self, mark: Mark) -> None:
        """Cut off what came since this mark, the one that is open; the next bytes come there.

        A write that was interrupted is forgiven by it; one that the disk failed is not. Raises `ValueError`
        for a mark that is not open, and `OSError`: the file is broken then.
        """
        if mark is not self._mark:
            raise ValueError("this mark is not open")
        if self._is_lost:
            raise OSError(errno.EIO, "a write failed before")
        self.is_broken = True
        try:
            self._calls.cut(self._staged.descriptor, mark.offset)
        except OSError:
            self._lose()
            raise
        self._seen, self._mark = mark, None
        self._looked = min(self._looked, mark.offset)
        self.is_broken = False

    def _lose(self) -> None:
        """The disk failed: of what it was not asked to flush, who knows what is there."""
        self._is_lost = True
        if self._journal is not None and self._durable:
            self._noted = self._flushed
            with suppress(OSError):
                self._journal.forget()

    def _check_whole(self) -> None:
        if self.is_broken:
            raise OSError(errno.EIO, "a write failed before")

    def require_room(self) -> None:
        """Raise `OSError` (ENOSPC) where the rest of the file has no room beside the reserve."""
        if self._staged.room() < least_room(self.size, self.offset):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def copy_from(
        self, descriptor: int, offset: int, size: int, check: Callable[[], object] = lambda: None
    ) -> None:
        """Append `size` bytes of another open file, from an offset in it, and hash them as `write` does.

        `check` is called before each piece and may raise; what came until then is there. Raises
        `ChangedWhileRead` where the file ends before, and as `write`.
        """
        buffer = memoryview(bytearray(min(_COPIED, size)))
        end = offset + size
        while offset < end:
            check()
            count = self._calls.pread(descriptor, buffer[: end - offset], offset)
            if not count:
                raise ChangedWhileRead
            self.write(buffer[:count])
            offset += count

    def commit(
        self,
        mtime_ns: int | None = None,
        replace: bool = True,
        mode: int | None = None,
        check: Callable[[], object] = lambda: None,
    ) -> None:
        """Give the file its name, durably; as `Staged.commit`, and a partial is gone either way.

        Without a `mode` a file that is replaced gives it its own (see `staging.inherited`); otherwise the
        umask decides. Raises `OSError` (EIO) where a write failed: the flush that lost content says so only
        once; `RuntimeError` where what came since a mark was not accepted.
        """
        try:
            self._check_whole()
            if self._mark is not None:
                raise RuntimeError("content that was not accepted cannot be committed")
            if mode is None and replace:
                mode = self._staged.inherited_mode()
        except BaseException:
            self.discard()
            raise
        try:
            self._staged.commit(mode=mode, mtime_ns=mtime_ns, replace=replace, check=check)
        finally:
            self._close()

    def require_place(self) -> None:
        """See `Staged.require_place`."""
        self._staged.require_place()

    def divert(self, name: str) -> None:
        """See `Staged.divert`."""
        self._staged.divert(name)

    def suspend(self) -> None:
        """Let go of it, so that it can be continued from `offset`; without a key it is discarded.

        Of what came since a mark and was not accepted nothing is kept. A second time, and after `commit`,
        this does nothing. Raises `OSError`; it is closed then, and what the journal said before holds. So it
        does where the disk failed in a write.
        """
        # The bytes may stay: without a word in the journal they are nothing, and are written over.
        self._seen, self._mark = self._mark or self._seen, None
        if self._journal is None or not (self._noted if self._is_lost else self.offset):
            self.discard()
            return
        try:
            if self._staged.descriptor >= 0 and not self._is_lost:
                self._flush(self._journal)
        finally:
            try:
                self._staged.keep()
            finally:
                self._close()

    def discard(self) -> None:
        """Remove it; a second time does nothing."""
        try:
            self._staged.discard()
        finally:
            self._close()

    def _flush(self, journal: Journal) -> None:
        self._note(journal, flush=True)
        if self._durable:
            self._calls.fsync(journal.descriptor)

    def _note(self, journal: Journal, *, flush: bool) -> None:
        digest = self.hasher.digest()
        if flush and self._durable:
            try:
                self._calls.fdatasync(self._staged.descriptor)
            except OSError:
                self._lose()
                raise
            journal.write(FLUSHED, self.offset, digest)
        if flush:
            self._flushed = self.offset
        journal.write(NEWEST, self.offset, digest)
        self._noted = self.offset

    def _close(self) -> None:
        journal, self._journal = self._journal, None
        if journal is not None:
            journal.close()

    def go_on(self, check: Callable[[], object]) -> bool:
        """Take up what the journal vouches for; False where the content is not that: it is of no use then.

        `check` is called before each piece of it and may raise.
        """
        if self._journal is None:
            return True
        noted, digest = self._journal.read()
        status = self._calls.fstat(self._staged.descriptor)
        if not noted or noted > min(self.size, status.st_size) or status.st_nlink > 1:
            # Two names: it is the committed file, where a hard link had to give it its name.
            return False
        buffer, hasher, offset = memoryview(bytearray(min(_PIECE, noted))), blake3(), 0
        while offset < noted:
            check()
            count = self._calls.read(self._staged.descriptor, buffer[: noted - offset])
            if not count:
                return False
            hasher.update(buffer[:count])
            offset += count
        self._seen = Mark(offset, hasher)
        self._noted = self._flushed = self._looked = noted
        return hasher.digest() == digest


def least_room(size: int, offset: int = 0) -> int:
    """Bytes that must be free for the rest of a file: an empty one needs none, an unknown one some."""
    return 1 if size == UNKNOWN_SIZE else size - offset
