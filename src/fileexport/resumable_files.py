"""Resumable uploads on the disk and in the state: what blocks of `fileexport.resumable`, for pool threads."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import replace
from threading import Lock
from typing import NamedTuple, Protocol

from twisted.logger import Logger

from fileexport.disk.uploads_store import Conflict, UploadRow, UploadsStore, new_upload_id
from fileexport.errors import FileNameError, OverloadedError, PeerGone
from fileexport.exports import Exports
from fileexport.paths import RelPath
from fileexport.tokens import Principal, Right
from fileexport.uploads import Upload

#: Unfinished uploads of one owner; the oldest that nobody writes to makes way for another one.
MAX_OWN = 64
#: Seconds between two notes that something comes.
TOUCH_EVERY = 60.0

#: Who looks what became of an upload after a kill: it sees all, and changes nothing.
_RECOVERY = Principal("recovery", Right.READ | Right.WRITE, RelPath())


class Gone(FileNotFoundError):
    """The upload waited too long for more, and is gone: begin again."""

    def __str__(self) -> str:
        return "the upload waited too long for more, and is gone: begin again"


class Wish(NamedTuple):
    """An upload that is asked for. `name` is its path below `directory`; None: what its id is."""

    directory: RelPath
    name: RelPath | None
    size: int
    conflict: Conflict = Conflict.ABORT
    mtime_ns: int | None = None
    metadata: str = ""


class Check(Protocol):
    """What the bytes of one part must come to; `check` raises where they do not."""

    def update(self, piece: bytes) -> None: ...
    def check(self) -> None: ...


def path_of(row: UploadRow) -> RelPath:
    """Where an upload goes."""
    return RelPath.parse(os.fsdecode(row.path))


class Filing:
    """What is done of uploads in threads."""

    _log = Logger()

    def __init__(self, exports: Exports, store: Callable[[], UploadsStore]) -> None:
        self._exports = exports
        self._store = store
        self._creating = Lock()

    def create(
        self, who: Principal, holder: str, wish: Wish, in_use: Collection[str]
    ) -> tuple[UploadRow, list[UploadRow]]:
        """See `Resumable.create`. Returns those, too, that make way: they are to be forgotten.

        None of them is `in_use`.
        """
        upload = new_upload_id()
        path = wish.directory + (wish.name or RelPath([upload]))
        if wish.name is not None and len(wish.name.parts) > 1:
            self._exports.make_parents(who, path)
        with self._creating:
            if wish.conflict is Conflict.RENAME:
                # Also what others are about to make: two uploads of one name are two files.
                taken = {RelPath.parse(os.fsdecode(target)) for target in self._store().targets()}
                path = self._exports.free_name(who, path, taken=taken)
            replaces = wish.conflict is Conflict.REPLACE
            self._exports.check_upload(who, path, size=wish.size, replace=replaces)
            # Who has to wait for another one learns it before it sends anything.
            self._exports.check_writer(who, path)
            now, target = self._store().now(), os.fsencode(str(path))
            row = UploadRow(
                upload, who.owner, target, wish.size, wish.metadata, wish.conflict, wish.mtime_ns, now, now
            )
            oldest = self._store().add(row, MAX_OWN, in_use)
        if oldest is None:
            raise OverloadedError("too many of your uploads are under way: finish one first")
        return row if wish.size else self._create_empty(who, holder, row), oldest

    def _create_empty(self, who: Principal, holder: str, row: UploadRow) -> UploadRow:
        try:
            return self.commit(who, row, self.open(who, holder, row, lambda: False))
        except BaseException:
            self._store().remove(row.id)
            raise

    def row(self, who: Principal, upload: str, is_in_use: bool) -> UploadRow:
        """The row of an upload of `who`. Raises `FileNotFoundError`, and `Gone` where it has expired."""
        row = self._store().get(upload)
        if row is None or row.owner != who.owner:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        if not is_in_use and row.expires <= self._store().now():
            raise Gone
        return row

    def standing(self, who: Principal, row: UploadRow, is_in_use: bool = False) -> tuple[UploadRow, int]:
        """The row of an upload that is not open, and how much of it has come.

        Raises `BusyError` where it is not in use, and another one writes its path: it cannot go on now.
        """
        if not row.done and row.identity is not None:
            row = self._decide(who, row)
        if row.done:
            return row, row.size
        if not is_in_use:
            with suppress(FileNotFoundError, NotADirectoryError):
                self._exports.check_writer(who, path_of(row))
        return row, self._kept(who, row)

    def unfinished(
        self, who: Principal, directory: RelPath, known: Mapping[str, int]
    ) -> list[tuple[UploadRow, int]]:
        """Those of `who` below a directory, and how much of each has come; of some that is `known`."""
        now, found = self._store().now(), []
        for row in self._store().unfinished(who.owner):
            is_open = row.id in known
            if directory.holds(path_of(row)) and (is_open or row.expires > now):
                found.append((row, known[row.id] if is_open else self._found(who, row)))
        return found

    def _found(self, who: Principal, row: UploadRow) -> int:
        """As `_kept`; nothing of one that cannot be looked at: it must not hide the others."""
        try:
            return self._kept(who, row)
        except OSError:
            return 0

    def open(self, who: Principal, holder: str, row: UploadRow, is_gone: Callable[[], bool]) -> Upload:
        """Open it for more. Raises as `Exports.begin_upload`, and `PeerGone` when its client is gone."""

        def check() -> None:
            if is_gone():
                raise PeerGone

        return self._exports.begin_upload(
            who,
            path_of(row),
            size=row.size,
            mtime_ns=row.mtime_ns,
            replace=row.conflict is Conflict.REPLACE,
            diverts=row.conflict is Conflict.RENAME,
            source=_source(row),
            holder=holder,
            check=check,
        )

    def touch(self, row: UploadRow) -> UploadRow:
        """Something came: note that, from time to time; the row as it is then."""
        if self._store().now() - row.touched < TOUCH_EVERY:
            return row
        return replace(row, touched=self._store().touch(row.id))

    def part(self, who: Principal, row: UploadRow, opened: Upload, check: Check | None) -> Part:
        """What takes bytes from now on."""
        return Part(self, who, row, opened, check)

    def commit(self, who: Principal, row: UploadRow, opened: Upload) -> UploadRow:
        """Give it its name, or where that is taken and it may have another one, that.

        Raises as `Exports.check_upload` and `Upload.finish`. It is not open any more then. What came of it is
        kept where the name is taken or the directory is not there, so that it can be finished when that has
        changed; else it is gone.
        """
        store, path, may_differ = self._store(), path_of(row), row.conflict is Conflict.RENAME

        def choose() -> None:
            nonlocal path
            if may_differ:
                path = self._exports.divert(who, path, opened)
            if path != path_of(row):
                store.divert(row.id, os.fsencode(str(path)))

        try:
            if not may_differ:
                replaces = row.conflict is Conflict.REPLACE
                self._exports.check_upload(who, path, size=0, replace=replaces)
            opened.require_place()
            # Before the name is given: then it is known after a kill whether it was.
            store.committing(row.id, opened.identity)
            opened.finish(check=choose)
        except BaseException:
            opened.suspend()
            store.committing(row.id, None)
            raise
        store.finish(row.id)
        return replace(row, path=os.fsencode(str(path)), metadata="", done=True)

    def forget(self, who: Principal, row: UploadRow, opened: Upload | None) -> None:
        """Forget it and what came of it. Raises `BusyError` where another process writes it."""
        # What stays, because the disk refuses it, goes when it is a day old.
        with suppress(OSError, FileNameError):
            if opened is not None:
                opened.discard()
            elif not row.done:
                self._exports.forget_upload(who, path_of(row), size=row.size, source=_source(row))
        self._store().remove(row.id)

    def recover(self, in_use: Collection[str]) -> None:
        """See `Resumable.recover`."""
        for row in self._store().undecided():
            if row.id not in in_use:
                try:
                    self._decide(_RECOVERY, row)
                except OSError:
                    self._log.failure("what became of an upload cannot be looked at")
        # What came of the old ones goes with all that nobody wrote to for a day: see `disk.recovery`.
        self._store().expire(in_use)

    def _decide(self, who: Principal, row: UploadRow) -> UploadRow:
        """What became of one that was about to be done when the daemon was killed."""
        identity = row.identity
        if identity is None or not self._exports.is_committed(who, path_of(row), identity):
            return row
        self._store().finish(row.id)
        return replace(row, metadata="", done=True)

    def _kept(self, who: Principal, row: UploadRow) -> int:
        return self._exports.kept_upload(who, path_of(row), size=row.size, source=_source(row))


class Part:
    """Bytes on their way into an open upload; with a `check` all of them count, or none.

    `row` is the upload's as it is by now. `take` and `settle` are called in threads, one after the other.
    """

    def __init__(
        self, filing: Filing, who: Principal, row: UploadRow, opened: Upload, check: Check | None
    ) -> None:
        self.row = row
        self._filing = filing
        self._who = who
        self._opened = opened
        self._check = check
        self._mark = None if check is None else opened.mark()

    @property
    def is_checked(self) -> bool:
        """Whether they may have to go again."""
        return self._check is not None

    @property
    def offset(self) -> int:
        """Bytes of the upload that are there."""
        return self._opened.offset

    @property
    def missing(self) -> int:
        """Bytes that are not."""
        return self.row.size - self.offset

    def take(self, piece: bytes) -> None:
        """Append some."""
        self._opened.write(piece)
        if self._check is not None:
            self._check.update(piece)
        self.row = self._filing.touch(self.row)

    def settle(self, problem: Exception | None) -> Exception | None:
        """They have ended, or this `problem` ended them. What counts is kept, what is whole is committed.

        Returns the problem, or what the check raised. Raises where the upload cannot go on as it is: the
        problem where there is one, else as `Filing.commit`, and `OSError`.
        """
        try:
            return self._settle(problem)
        except Exception as error:
            raise problem or error from None

    def _settle(self, problem: Exception | None) -> Exception | None:
        if self._mark is not None and self._check is not None:
            problem = problem or _wrong(self._check)
            if problem is not None:
                self._opened.rewind(self._mark)
                return problem
        self._opened.accept()
        if not self.missing:
            self.row = self._filing.commit(self._who, self.row, self._opened)
        else:
            self.row = self._filing.touch(self.row)
        return problem


def _wrong(check: Check) -> Exception | None:
    try:
        check.check()
    except Exception as error:
        return error
    return None


def _source(row: UploadRow) -> bytes:
    """What no other upload has: two of one name do not mix."""
    return b"tus " + row.id.encode("ascii")
