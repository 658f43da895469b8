"""A file put at its own path, or deleted there: PUT and DELETE as RFC 9110 means them.

All that can refuse a file is asked before its first byte is read; its conditions are asked again right
before it gets its name, when nobody else of ours can write it.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus

from fileexport.errors import DestinationNotFound
from fileexport.exports import Exports
from fileexport.http_queries import flag
from fileexport.http_receiving import Receiver, check_length, holder_of, refuse_coding
from fileexport.paths import RelPath
from fileexport.pools import Worker, surely
from fileexport.tokens import Principal
from fileexport.uploads import Upload
from fileexport.web import pages
from fileexport.web.digests import Sums
from fileexport.web.failures import HttpError, through_directories
from fileexport.web.ranges import FileState, may_change, strong_etag
from fileexport.web.request import Header, Request

_TEXT = b"text/plain; charset=utf-8"
_CONDITIONS = frozenset((b"if-match", b"if-none-match", b"if-unmodified-since"))

_CHANGED = "the file is not in the state that was asked for"
_NO_PARENT = "there is no such directory: make it first, or add ?parents to have it made"
_PARTIAL = "a part of a file cannot be put: send the whole file, without Content-Range"


class UploadsDoor:
    """Stores and deletes single files."""

    def __init__(
        self,
        exports: Exports,
        disk: Worker,
        receiver: Receiver,
        *,
        limit: int,
        prefix: str,
        names: frozenset[str],
    ) -> None:
        """`limit`: bytes of a file. `prefix` and `names` are those of `pages.url_of`."""
        self._exports = exports
        self._disk = disk
        self._receiver = receiver
        self._limit = limit
        self._prefix = prefix
        self._names = names

    async def put(self, request: Request, who: Principal, below: bytes) -> None:
        """Store the request's body as a file: 201 where it is new, else 204.

        Whatever is raised, the old version stays and nothing new is left, but with ``?parents`` the
        directories above.
        """
        path = _file_path(below)
        parents = flag(request.parameters(), "parents")
        if request.fields(b"content-range"):
            raise HttpError(HTTPStatus.BAD_REQUEST, _PARTIAL)
        refuse_coding(request)
        size = check_length(request, self._limit)
        sums = Sums.asked(request.fields)
        file = _File(self._exports, who, path, _Conditions(request), sums)
        with self._receiver.place() as place:
            await self._disk.run(file.begin, size, holder_of(request, who), parents)
            try:
                await place.receive(request, file.take, limit=self._limit)
                await self._disk.run(file.finish)
            finally:
                if file.is_open:
                    await surely(self._disk, file.discard)
        self._answer(request, file, path)

    def _answer(self, request: Request, file: _File, path: RelPath) -> None:
        headers: list[Header] = [] if file.etag is None else [(b"ETag", file.etag)]
        if file.sums is not None:
            headers.append((b"Repr-Digest", file.sums.field))
        if not file.is_new:
            request.begin(HTTPStatus.NO_CONTENT, headers)
            return request.end()
        url = pages.url_of(path, self._prefix, self._names).encode("ascii")
        request.answer(HTTPStatus.CREATED, b"", _TEXT, ((b"Location", url), *headers))

    async def delete(self, request: Request, who: Principal, below: bytes) -> None:
        """Delete one file, or a link itself: 204. A directory is refused."""
        path = _file_path(below)
        await self._disk.run(self._remove, who, path, _Conditions(request), holder_of(request, who))
        request.begin(HTTPStatus.NO_CONTENT, ())
        request.end()

    def _remove(self, who: Principal, path: RelPath, conditions: _Conditions, holder: str) -> None:
        if not conditions.are_any:
            return self._exports.remove_file(who, path)

        def check() -> None:
            conditions.check(self._exports.known(who, path))

        # Also before its directory is looked for: what is not there at all is in no state.
        check()
        self._exports.remove_held(who, path, check, holder=holder)


class _File:
    """One file that comes in. `begin`, `take`, `finish` and `discard` are called in threads, one at a time.

    After `finish`: `is_new` says whether nothing was there before, `etag` is the file's own, unless it was
    replaced already.
    """

    def __init__(
        self, exports: Exports, who: Principal, path: RelPath, conditions: _Conditions, sums: Sums | None
    ) -> None:
        self._exports = exports
        self._who = who
        self._path = path
        self._conditions = conditions
        self._upload: Upload | None = None
        self.sums = sums
        self.is_new = True
        self.etag: bytes | None = None

    @property
    def is_open(self) -> bool:
        """Whether something is staged."""
        return self._upload is not None

    def begin(self, size: int | None, holder: str, parents: bool) -> None:
        """Take the name, and room. Raises what keeps the file from being stored, so far as that is known."""
        if parents:
            # Before anything is made.
            self._check()
            with _refusals(self._conditions):
                self._exports.make_parents(self._who, self._path)
        with _refusals(self._conditions):
            self._upload = self._exports.begin_upload(
                self._who,
                self._path,
                size=size,
                mtime_ns=None,
                replace=not self._conditions.want_nothing,
                source=None,
                holder=holder,
            )
        try:
            self._check()
        except BaseException:
            self.discard()
            raise

    def _check(self) -> None:
        found = self._exports.known(self._who, self._path)
        if found is not None and stat.S_ISDIR(found.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        self._conditions.check(found)
        self.is_new = found is None

    def take(self, piece: bytes) -> None:
        """Append content."""
        assert self._upload is not None
        self._upload.write(piece)
        if self.sums is not None:
            self.sums.update(piece)

    def finish(self) -> None:
        """Give the file its name. Raises `BadRequestError` where a digest is not that of the content."""
        assert self._upload is not None
        if self.sums is not None:
            self.sums.check()
        upload, identity = self._upload, self._upload.identity
        self._upload = None
        with _refusals(self._conditions):
            upload.finish(check=self._check)
        found = self._exports.known(self._who, self._path)
        if found is not None and (found.st_dev, found.st_ino) == identity:
            self.etag = strong_etag(found)

    def discard(self) -> None:
        """Forget what has come."""
        upload, self._upload = self._upload, None
        if upload is not None:
            upload.discard()


class _Conditions:
    """What a request wants the file to be before it is changed (RFC 9110, section 13)."""

    def __init__(self, request: Request) -> None:
        self._method = request.method
        self._fields = request.fields
        self._now = request.now
        self.are_any = request.has_any(_CONDITIONS)
        #: Whether there must be nothing at all: nothing is replaced then, whoever makes it meanwhile.
        self.want_nothing = [line.strip() for line in request.fields(b"if-none-match")] == [b"*"]

    def check(self, found: os.stat_result | None) -> None:
        """Raise 412 where the file is another one, or there where it must not be, or not there."""
        if not self.are_any:
            return
        state = None
        if found is not None:
            state = FileState(found.st_size, found.st_mtime_ns, strong_etag(found))
        # Since the request came the file may have changed: its date counts as it is.
        now = max(self._now, found.st_mtime if found is not None else 0)
        if not may_change(self._method, self._fields, state, now=now):
            raise HttpError(HTTPStatus.PRECONDITION_FAILED, _CHANGED)


@contextmanager
def _refusals(conditions: _Conditions) -> Iterator[None]:
    """What these errors mean to who puts a file (RFC 9110, section 13.1.2, and RFC 4918, section 9.7.1)."""
    try:
        with through_directories():
            yield
    except DestinationNotFound:
        raise HttpError(HTTPStatus.CONFLICT, _NO_PARENT) from None
    except FileExistsError:
        if not conditions.want_nothing:
            raise
        raise HttpError(HTTPStatus.PRECONDITION_FAILED, _CHANGED) from None


def _file_path(below: bytes) -> RelPath:
    """The path of a file; a directory's is refused."""
    path = RelPath.from_url(below)
    if not path or below.endswith(b"/"):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    return path
