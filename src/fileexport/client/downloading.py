"""One file from the server: written and hashed as it comes, continued after a cut, never out of its place."""

from __future__ import annotations

import errno
import os

from fileexport.client.answers import Stalled, name_file, not_found
from fileexport.client.chunks import CallerRaised, Chunks, Manner, Retries
from fileexport.client.listings import grower
from fileexport.client.operation import Operation
from fileexport.client.pool import Pool
from fileexport.disk.batches import Batch
from fileexport.disk.jail import Jail, Opened, View
from fileexport.disk.partials import KEPT, Partial
from fileexport.errors import ChangedWhileRead, CorruptedResponse, DestinationNotFound, SourceNotFound
from fileexport.paths import RESERVED, RelPath
from fileexport.wire import messages as m

#: From this size on what came is kept when a download ends early.
_LARGE = 1 << 20
_PIECE = 1 << 20
_VIEW = View()


class Destination:
    """A directory here, into which files are downloaded; nothing outside it is ever touched.

    Files appear in it complete or not at all. Until then they are in `.fileexport/` beside them, which goes
    with the last of them; what is there of a large download that broke off stays for a day. Nothing is
    flushed: a power failure may take what just arrived.

    Raises `DestinationNotFound`, `NotADirectoryError`, else `OSError`.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        try:
            self.jail = Jail(path, durable=False, may_be_new=lambda name: True)
        except FileNotFoundError:
            raise not_found(DestinationNotFound, path) from None

    def spelled(self, path: RelPath) -> str:
        """A path in it as this system spells it, for a message."""
        return os.path.join(self.path, *path.parts)

    def check_new(self, path: RelPath) -> None:
        """Raise `FileExistsError` where something has this name."""
        try:
            self.jail.lstat(_VIEW, path)
        except FileNotFoundError:
            return
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), self.spelled(path))

    def make_directory(self, path: RelPath, *, exist_ok: bool = False) -> None:
        """Make a directory in it; raises `FileExistsError`, else `OSError`."""
        self.jail.make_directory(_VIEW, path, exist_ok=exist_ok)

    def partial(self, path: RelPath, size: int, key: bytes | None, owner: bytes) -> Partial:
        """Begin a file in it, or go on with one."""
        return self.jail.partial(_VIEW, path, size=size, key=key, owner=owner)

    def batch(self, *, replace: bool) -> Batch:
        """Begin small files in it."""
        return self.jail.batch(_VIEW, replace=replace)

    def open(self, path: RelPath) -> Opened:
        """Open a file in it for reading; raises `OSError`, for a directory too."""
        opened = self.jail.open(_VIEW, path)
        if opened.is_directory:
            opened.close()
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), self.spelled(path))
        return opened

    def has_partials(self) -> bool:
        """Whether something in it may be continued."""
        try:
            names = os.listdir(os.path.join(self.path, RESERVED))
        except OSError:
            return False
        return any(name.startswith(KEPT) for name in names)

    def close(self) -> None:
        """Clean up."""
        try:
            self.jail.recover((RelPath(),))
        finally:
            self.jail.close()

    def __enter__(self) -> Destination:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def download(
    pool: Pool,
    source: RelPath,
    destination: Destination,
    path: RelPath,
    manner: Manner,
) -> bool:
    """Fetch `source` so that it is `path` in `destination`; False where `process_chunk` cancelled it.

    Once it returns True, content and modification time are the server's, hash-checked. A file that changes
    meanwhile is fetched once more from its beginning, `process_chunk` being called again; then it is
    `ChangedWhileRead`. After a cut it goes on by itself, and where the server gave up because the caller took
    so long. After an error nothing new stands under the name; of a large file, what came is kept for a day
    where the connection failed, and a further call goes on there.
    """
    return fetch(pool, source, destination, path, manner)[0]


def fetch(
    pool: Pool, source: RelPath, destination: Destination, path: RelPath, manner: Manner
) -> tuple[bool, int]:
    """As `download`; also how many bytes of content travelled."""
    if not manner.replace:
        destination.check_new(path)
    one = Download(pool, source, destination, path, manner)
    try:
        try:
            return one.run(), one.travelled
        except ChangedWhileRead:
            # What is there of it was thrown away: from the beginning, once.
            return one.run(), one.travelled
    except CallerRaised as raised:
        error = raised.error
    # Out here, so that it is what it was: with its own cause and context.
    raise error


class Download:
    """One file on its way, over as many connections as it takes."""

    def __init__(
        self,
        pool: Pool,
        source: RelPath,
        destination: Destination,
        path: RelPath,
        manner: Manner,
    ) -> None:
        self._pool = pool
        self._source = source
        self._destination = destination
        self._path = path
        self._manner = manner
        self._wait = manner.wait
        server = pool.server
        self._owner = repr((server.hostname, server.port, str(source))).encode("utf-8", "surrogateescape")
        self._partial: Partial | None = None
        self._version = b""
        self._mtime = 0
        self._mode: int | None = None
        #: Bytes of content that came, twice what came again.
        self.travelled = 0
        self._chunks: Chunks | None = None

    def run(self) -> bool:
        retries = Retries()
        try:
            if self._destination.has_partials():
                self._look()
            while True:
                try:
                    return self._attempt(retries)
                except (ConnectionError, Stalled) as error:
                    retries.after(error)
        except FileNotFoundError as error:
            if type(error) is not FileNotFoundError or error.filename != str(self._source):
                raise
            raise not_found(SourceNotFound, str(self._source)) from None
        except (ConnectionError, TimeoutError, KeyboardInterrupt):
            if self._partial is not None and not (self._chunks is not None and self._chunks.stopped):
                self._partial.suspend()
            raise
        except OSError as error:
            name_file(error, self._destination.spelled(self._path))
            raise
        finally:
            self._forget()

    def _look(self) -> None:
        """Ask what the file is now: there may be a part of it here."""
        asked = m.Read(self._source, length=0)
        with self._pool.operation(asked, self._wait(), path=str(self._source), again=True) as operation:
            announced = operation.reply(m.Content)
            operation.end()
        self._begin(announced)
        self._note(announced)

    def _attempt(self, retries: Retries) -> bool:
        offset = self._partial.offset if self._partial is not None else 0
        asked = m.Read(self._source, offset, version=self._version or None)
        with self._pool.operation(asked, self._wait(), path=str(self._source), again=True) as operation:
            partial = self._agree(operation.reply(m.Content), offset)
            retries.begun_at(partial.offset)
            if not self._catch_up(partial) or not self._copy(operation, partial):
                return False
        partial.commit(mtime_ns=self._mtime, replace=self._manner.replace, mode=self._mode)
        return True

    def _agree(self, announced: m.Content, offset: int) -> Partial:
        """The file that what comes now belongs to."""
        if announced.offset not in (0, offset):
            raise CorruptedResponse("a file that begins where nobody asked for it")
        partial = self._partial
        if partial is None or announced.version != self._version or announced.size != partial.size:
            partial = self._begin(announced)
        if partial.offset != announced.offset:
            if announced.offset:
                raise CorruptedResponse("the rest of another file than was asked for")
            partial.discard()
            partial = self._begin(announced)
        self._note(announced)
        return partial

    def _note(self, announced: m.Content) -> None:
        self._mtime = announced.mtime
        self._mode = announced.mode if self._manner.keep_mode else None

    def _begin(self, announced: m.Content) -> Partial:
        self._forget()
        key = announced.version if announced.size >= _LARGE and announced.version else None
        self._partial = self._destination.partial(self._path, announced.size, key, self._owner)
        self._version = announced.version
        self._chunks = self._manner.chunks(announced.size, self._path.name)
        self._reports = self._manner.reports(announced.size)
        return self._partial

    def _forget(self) -> None:
        partial, self._partial = self._partial, None
        if partial is not None:
            partial.discard()

    def _catch_up(self, partial: Partial) -> bool:
        """Show the caller the chunks that were here before."""
        chunks = self._chunks
        while chunks is not None and chunks.fed < partial.offset:
            size = min(_PIECE, partial.offset - chunks.fed)
            if not chunks.feed(os.pread(partial.descriptor, size, chunks.fed)):
                return False
        return True

    def _copy(self, operation: Operation, partial: Partial) -> bool:
        grow = grower(operation.session.features)
        chunks = self._chunks
        while not isinstance(found := operation.content(), m.End):
            piece = grow(found)
            operation.consumed(len(found.piece))
            if piece is None:
                continue
            if len(piece) > partial.size - partial.offset:
                raise CorruptedResponse("a file that is longer than was said")
            partial.write(piece)
            self.travelled += len(piece)
            if chunks is not None and not chunks.feed(piece):
                return False
            self._reports.at(partial.offset)
        if (
            found.size != partial.size
            or partial.offset != partial.size
            or found.digest != partial.hasher.digest()
        ):
            raise ChangedWhileRead
        return True
