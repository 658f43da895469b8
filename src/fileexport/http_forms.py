"""Files that a form sends: each is stored as it comes, and has its name as soon as its part ends.

One that cannot be stored does not keep the others from being stored; what was stored stays, whatever becomes
of the rest of the form.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import NamedTuple

from fileexport.disk.uploads_store import Conflict
from fileexport.errors import BadRequestError, FileExportError, PeerGone
from fileexport.exports import Exports
from fileexport.http_outcomes import Failed, Outcome, Outcomes, counted
from fileexport.http_queries import conflict_of
from fileexport.http_receiving import Receiver, holder_of, refuse_coding, too_large
from fileexport.paths import RelPath, printable
from fileexport.pools import Worker, surely
from fileexport.tokens import Principal
from fileexport.uploads import Upload
from fileexport.web.failures import through_directories
from fileexport.web.forms import Event, Field, FileBegins, FileEnds, Multipart, boundary_of
from fileexport.web.request import Request

#: Files that have an end before somebody else may have the thread.
MAX_ENDS = 16


class FormsDoor:
    """Stores the files of multipart forms."""

    def __init__(
        self, exports: Exports, disk: Worker, receiver: Receiver, outcomes: Outcomes, *, limit: int
    ) -> None:
        """`limit`: bytes of one file."""
        self._exports = exports
        self._disk = disk
        self._receiver = receiver
        self._outcomes = outcomes
        self._limit = limit

    async def post(self, request: Request, who: Principal, below: bytes) -> None:
        """Store the files of a form in a directory, or below it where their names are paths."""
        where = RelPath.from_url(below)
        boundary = boundary_of(request.fields(b"content-type"))
        refuse_coding(request)
        storing = _Storing(self._exports, who, where, boundary, _client_of(request, who), self._limit)
        with self._receiver.place() as place:
            await self._disk.run(self._exports.check_directory, who, where, size=request.head.length)
            try:
                await place.receive(request, storing.take)
                storing.end()
            finally:
                if storing.is_open:
                    await surely(self._disk, storing.discard)
        await self._outcomes.answer(request, self._outcome(storing, where))

    def _outcome(self, storing: _Storing, where: RelPath) -> Outcome:
        status = storing.failed[0].status if storing.failed else HTTPStatus.CREATED
        files = [
            {"path": printable(str(path)), "url": self._outcomes.entry(path), "size": size}
            for path, size in storing.stored
        ]
        names = [str(path.beneath(where)).removeprefix("/") for path, _ in storing.stored]
        sentence = counted("stored", len(files), "file", "files")
        return Outcome(sentence, status, where, {"files": files}, storing.failed, names)


class _Storing:
    """The files of one form on their way to the disk. Called in threads, one call at a time.

    - `stored`: the paths and sizes of the files that have their names, durably; `failed`: those that do not.
    """

    def __init__(
        self, exports: Exports, who: Principal, where: RelPath, boundary: str, client: _Client, limit: int
    ) -> None:
        self._exports = exports
        self._who = who
        self._where = where
        self._client = client
        self._limit = limit
        self._form = Multipart(boundary)
        self._events: Iterator[Event] = iter(())
        self._conflict = Conflict.ABORT
        self._is_renamed = False
        self._name = ""
        self._path = where
        self._upload: Upload | None = None
        #: Directories that are there: many files of a form share theirs.
        self._made = {where}
        self.stored: list[tuple[RelPath, int]] = []
        self.failed: list[Failed] = []

    @property
    def is_open(self) -> bool:
        """Whether something is staged."""
        return self._upload is not None

    def take(self, data: bytes) -> bool:
        """Take more of the form's body; whether it has to be called again, without more, for the rest of it.

        A thread is for all: many small files in one piece are not stored at one go. Raises as
        `Multipart.feed`, `BadRequestError`, and `PeerGone` where nobody is there for what else has come.
        """
        if data:
            self._events = self._form.feed(data)
        ends = 0
        for event in self._events:
            self._store(event)
            if isinstance(event, FileEnds):
                ends += 1
                if self._client.is_gone():
                    raise PeerGone
                if ends == MAX_ENDS:
                    return True
        return False

    def end(self) -> None:
        """Say that the body has ended. Raises `BadRequestError` where the form has not, or has no file."""
        self._form.close()
        if not self.stored and not self.failed:
            raise BadRequestError("the form has no file: choose one")

    def discard(self) -> None:
        """Forget the file that is not complete."""
        upload, self._upload = self._upload, None
        if upload is not None:
            upload.discard()

    def _store(self, event: Event) -> None:
        match event:
            case FileBegins():
                self._name = event.filename
                self._try(self._begin)
            case bytes():
                if self._upload is not None:
                    self._try(self._write, event)
            case FileEnds():
                if self._upload is not None:
                    self._try(self._finish)
            case Field(name="conflict"):
                self._conflict = conflict_of(event.value)
            case Field():
                """Fields that we do not know are passed over: a form may have its own."""

    def _try(self, act: Callable[..., None], *args: bytes) -> None:
        """Do something for the present file; where that fails, the file has failed, and nothing else."""
        try:
            act(*args)
        except (OSError, FileExportError) as error:
            self.discard()
            self.failed.append(Failed.of(self._name, error))

    def _begin(self) -> None:
        path = self._where + RelPath(self._name.split("/"))
        if path.parent not in self._made:
            with through_directories():
                self._exports.make_parents(self._who, path)
            self._made.add(path.parent)
        self._is_renamed = self._conflict is Conflict.RENAME
        if self._is_renamed:
            path = self._exports.free_name(self._who, path)
        self._path = path
        self._upload = self._exports.begin_upload(
            self._who,
            path,
            replace=self._conflict is Conflict.REPLACE,
            diverts=self._is_renamed,
            holder=self._client.holder,
        )

    def _write(self, data: bytes) -> None:
        assert self._upload is not None
        if self._upload.offset + len(data) > self._limit:
            raise too_large(self._limit)
        self._upload.write(data)

    def _finish(self) -> None:
        assert self._upload is not None
        upload, self._upload = self._upload, None
        size = upload.offset

        def choose() -> None:
            if self._is_renamed:
                self._path = self._exports.divert(self._who, self._path, upload)

        upload.finish(check=choose)
        self.stored.append((self._path, size))


class _Client(NamedTuple):
    """Who sends a form: what others read who come meanwhile, and whether they are gone."""

    holder: str
    is_gone: Callable[[], bool]


def _client_of(request: Request, who: Principal) -> _Client:
    return _Client(holder_of(request, who), lambda: request.gone)
