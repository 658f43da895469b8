"""A file of announced size that is written from its beginning, hashed, and can be continued after a break.

It is staged like any other file. With a key it is staged under a name that the key gives, beside a journal:
how many bytes of it were written, and their hash; for a loss of power, the same of those that were flushed.
Whoever comes with the same key goes on from there; the bytes are read and hashed again before that is
believed, so a journal can lie without harm.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import ExitStack, suppress
from struct import Struct
from typing import NamedTuple

from blake3 import blake3

from fileexport.disk.calls import Calls
from fileexport.disk.staging import TRIES, Staged, has_name, identity_of, remove_orphan, stage, staging_of
from fileexport.errors import BusyError, ChangedWhileRead

#: Names in staging of what can be continued, and of its journal: the rest of both is the same.
KEPT, JOURNAL = "part-", "mark-"
#: Partials of one owner in one staging; the oldest goes when there is another one.
MAX_KEPT = 64
#: Bytes between two notes in the journal, between two that are flushed, and between two looks at the free
#: space.
_NOTE_EVERY, _FLUSH_EVERY, _LOOK_EVERY = 2 << 20, 32 << 20, 64 << 20
#: Bytes that are read at once when a partial is continued.
_PIECE = 1 << 20
#: And when another file is copied: they stay in the processor's cache until they are hashed and written.
_COPIED = 512 << 10

#: Offset and hash of what lies before it; then a hash of these two.
_NOTE = Struct(">Q32s")
_NOTE_SIZE = _NOTE.size + 32
#: Where in a journal the newest note stands, and the newest that was flushed.
_NEWEST, _FLUSHED = 0, _NOTE_SIZE
#: Characters of a name that say whose it is, the hyphen behind them included.
_OWNER = 17
_OPEN = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY


def partial_of(journal: str) -> str:
    """The name of the partial that a journal of this name belongs to."""
    return KEPT + journal.removeprefix(JOURNAL)


class _Seen(NamedTuple):
    """Bytes that were written, and the hash that has seen them: exchanged in one step."""

    offset: int
    hasher: blake3


class Partial:
    """A file that is being written; `hasher` has seen the `offset` bytes that are there.

    Not thread-safe; one writer. It ends by `commit`, `suspend` or `discard`, and must. After whatever `write`
    raised it is never committed.
    """

    def __init__(
        self, calls: Calls, staged: Staged, journal: _Journal | None, size: int, durable: bool
    ) -> None:
        self._calls = calls
        self._staged = staged
        self._journal = journal
        self._durable = durable
        #: Whether a write did not come to its end; and whether the disk said so: then it may have lost more.
        self.is_broken = False
        self._is_lost = False
        self.size = size
        self._seen = _Seen(0, blake3())
        self._noted = self._flushed = 0
        self._looked = 0

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
            self._seen = _Seen(offset + len(data), hasher)
            if self._journal is not None and self.offset - self._noted >= _NOTE_EVERY:
                self._note(self._journal, flush=self.offset - self._flushed >= _FLUSH_EVERY)
        except OSError:
            self._lose()
            raise
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
        room = self._staged.room()
        # An empty file needs none.
        if room < self.size - self.offset:
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

    def commit(self, mtime_ns: int | None = None, replace: bool = True, mode: int | None = None) -> None:
        """Give the file its name, durably; as `Staged.commit`, and a partial is gone either way.

        Without a `mode` a file that is replaced gives it its own (see `staging.inherited`); otherwise the
        umask decides. Raises `OSError` (EIO) where a write failed: the flush that lost content says so only
        once.
        """
        try:
            self._check_whole()
            if mode is None and replace:
                mode = self._staged.inherited_mode()
        except BaseException:
            self.discard()
            raise
        try:
            self._staged.commit(mode=mode, mtime_ns=mtime_ns, replace=replace)
        finally:
            self._close()

    def suspend(self) -> None:
        """Let go of it, so that it can be continued from `offset`; without a key it is discarded.

        A second time, and after `commit`, this does nothing. Raises `OSError`; it is closed then, and what
        the journal said before holds. So it does where the disk failed in a write.
        """
        if self._journal is None or not (self._noted if self._is_lost else self.offset):
            self.discard()
            return
        try:
            if self._staged.descriptor >= 0 and not self._is_lost:
                self._note(self._journal, flush=True)
                if self._durable:
                    self._calls.fsync(self._journal.descriptor)
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

    def _note(self, journal: _Journal, *, flush: bool) -> None:
        digest = self.hasher.digest()
        if flush and self._durable:
            try:
                self._calls.fdatasync(self._staged.descriptor)
            except OSError:
                self._lose()
                raise
            journal.write(_FLUSHED, self.offset, digest)
            self._flushed = self.offset
        journal.write(_NEWEST, self.offset, digest)
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
        if not noted or noted > min(self.size, self._calls.fstat(self._staged.descriptor).st_size):
            return False
        buffer, hasher, offset = memoryview(bytearray(min(_PIECE, noted))), blake3(), 0
        while offset < noted:
            check()
            count = self._calls.read(self._staged.descriptor, buffer[: noted - offset])
            if not count:
                return False
            hasher.update(buffer[:count])
            offset += count
        self._seen = _Seen(offset, hasher)
        self._noted = self._flushed = self._looked = noted
        return hasher.digest() == digest


class _Journal:
    """How much of a partial was written, and how much flushed, with their hashes: two records.

    Each is written over and over.
    """

    def __init__(self, calls: Calls, descriptor: int) -> None:
        self._calls = calls
        self.descriptor = descriptor

    @classmethod
    def open(cls, calls: Calls, staging: int, name: str) -> _Journal:
        """Open the journal of this name, or make it."""
        try:
            descriptor = calls.open(name, _OPEN, dir_fd=staging)
        except FileNotFoundError:
            descriptor = calls.open(name, _OPEN | os.O_CREAT | os.O_EXCL, dir_fd=staging)
        return cls(calls, descriptor)

    def read(self) -> tuple[int, bytes]:
        """The newest that it says; (0, b"") where it says nothing that can be believed."""
        return self._at(_NEWEST) or self._at(_FLUSHED) or (0, b"")

    def _at(self, place: int) -> tuple[int, bytes] | None:
        buffer = bytearray(_NOTE_SIZE)
        count = self._calls.pread(self.descriptor, buffer, place)
        note, check = bytes(buffer[: _NOTE.size]), bytes(buffer[_NOTE.size :])
        if count != _NOTE_SIZE or blake3(note).digest() != check:
            return None
        offset, digest = _NOTE.unpack(note)
        return offset, digest

    def write(self, place: int, offset: int, digest: bytes) -> None:
        """Say it: the newest, or what was flushed."""
        note = _NOTE.pack(offset, digest)
        self._write(place, note + blake3(note).digest())

    def forget(self) -> bool:
        """Take back the newest; whether one that was flushed is left."""
        is_said = self._at(_NEWEST) is not None
        self._write(_NEWEST, bytes(_NOTE_SIZE))
        return is_said and self._at(_FLUSHED) is not None

    def _write(self, place: int, record: bytes) -> None:
        # A record that is torn is believed by nobody: it costs a resume, not a file.
        while record:
            count = self._calls.pwrite(self.descriptor, record, place)
            place, record = place + count, record[count:]

    def close(self) -> None:
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            self._calls.close(descriptor)


class Place(NamedTuple):
    """Where a file goes: `name` in the directory `target`, which lies in or beneath `base`."""

    base: int
    target: int
    name: str


def begin(
    calls: Calls,
    place: Place,
    size: int,
    *,
    key: bytes | None,
    owner: bytes,
    durable: bool,
    check: Callable[[], object],
) -> Partial:
    """Begin a file of `size` bytes, or go on with what `owner` left of it under the same key.

    `place.target` is closed when the file has ended, or when this raises: `BusyError` where another process
    writes the same, `OSError`, ENOSPC where there is no room for it, and what `check` raises while the kept
    part is read. Nothing new is left then.
    """
    try:
        if key is None:
            partial = Partial(calls, stage(calls, *place, durable=durable), None, size, durable)
        else:
            rest = _spelled(calls, place, size, key, owner)
            partial = _kept(lambda: _try(calls, place, size, rest, durable, check))
    except BaseException:
        calls.close(place.target)
        raise
    try:
        partial.require_room()
    except BaseException:
        partial.suspend()
        raise
    return partial


def _spelled(calls: Calls, place: Place, size: int, key: bytes, owner: bytes) -> str:
    """The part of a partial's name behind `KEPT`: whose it is, and of what, for where."""
    of = blake3(repr((*identity_of(calls, place.target), size, os.fsencode(place.name), key)).encode("utf-8"))
    return f"{blake3(owner).hexdigest(8)}-{of.hexdigest(16)}"


def _kept(attempt: Callable[[], Partial | None]) -> Partial:
    for _ in range(TRIES):
        # A recovery may find the staging empty and remove it under our hands.
        with suppress(FileNotFoundError):
            if (partial := attempt()) is not None:
                return partial
    raise BusyError


def _try(
    calls: Calls, place: Place, size: int, rest: str, durable: bool, check: Callable[[], object]
) -> Partial | None:
    """Take it up, or make it; None where it was of no use, or somebody's, and is gone now."""
    name, beside = KEPT + rest, JOURNAL + rest
    with ExitStack() as held, ExitStack() as undo:
        staging = staging_of(calls, place.base, place.target)
        held.callback(calls.close, staging)
        descriptor, is_new = _open(calls, staging, name)
        held.callback(calls.close, descriptor)
        if is_new:
            undo.callback(_drop, calls, staging, name, beside)
        if not _claim(calls, staging, name, descriptor):
            undo.pop_all()
            return None
        if is_new:
            _make_way(calls, staging, name)
        journal = _Journal.open(calls, staging, beside)
        held.callback(journal.close)
        staged = Staged(calls, staging, name, descriptor, place.target, place.name, durable, beside)
        partial = Partial(calls, staged, journal, size, durable)
        if not is_new and not partial.go_on(check):
            # After a loss of power less may be there than was written.
            if not journal.forget():
                calls.unlink(name, dir_fd=staging)
            return None
        undo.pop_all()
        held.pop_all()
        return partial


def _open(calls: Calls, staging: int, name: str) -> tuple[int, bool]:
    """Open the partial of this name, or make it; whether it is new."""
    with suppress(FileNotFoundError):
        return _open_kept(calls, staging, name), False
    with suppress(FileExistsError):
        return calls.open(name, _OPEN | os.O_CREAT | os.O_EXCL, dir_fd=staging), True
    return _open_kept(calls, staging, name), False


def _open_kept(calls: Calls, staging: int, name: str) -> int:
    with suppress(PermissionError):
        return calls.open(name, _OPEN, dir_fd=staging)
    # Killed in its commit, it has the mode that it was to have. A living writer's keeps it.
    descriptor = calls.open(name, _OPEN & ~os.O_RDWR, dir_fd=staging)
    try:
        if _claim(calls, staging, name, descriptor):
            calls.fchmod(descriptor, 0o600)
        return calls.open(name, _OPEN, dir_fd=staging)
    finally:
        calls.close(descriptor)


def _claim(calls: Calls, staging: int, name: str, descriptor: int) -> bool:
    """Lock it, or raise `BusyError`; False where somebody had it: it may be a committed file by now."""
    try:
        calls.lock(descriptor)
    except BlockingIOError:
        raise BusyError from None
    return has_name(calls, staging, name, descriptor)


def _drop(calls: Calls, staging: int, *names: str) -> None:
    for name in names:
        with suppress(OSError):
            calls.unlink(name, dir_fd=staging)


def _make_way(calls: Calls, staging: int, name: str) -> None:
    """Where the owner has too many partials, remove the oldest that nobody writes to."""
    owner = name[: len(KEPT) + _OWNER]
    names = [found.name for found in calls.scan(staging) if found.name.startswith(owner)]
    if len(names) <= MAX_KEPT:
        return
    aged = []
    for found in names:
        with suppress(FileNotFoundError):
            aged.append((calls.lstat(found, dir_fd=staging).st_mtime_ns, found))
    for _, found in sorted(aged):
        if found != name and remove_orphan(calls, staging, found, lambda status: True):
            _drop(calls, staging, JOURNAL + found.removeprefix(KEPT))
            return
