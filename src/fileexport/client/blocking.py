"""`Client`: the verbs of the transfer protocol as plain, blocking calls. No Twisted."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

from fileexport.client import conversations as talks
from fileexport.client.chunks import DEFAULT_CHUNK, Manner, ProcessChunk, Progress, check_chunk_size
from fileexport.client.connection import Wait
from fileexport.client.conversations import Format as Format
from fileexport.client.login import Server
from fileexport.client.matching import Matching, PathText
from fileexport.client.names import LocalFile, Outcome, RemoteEntry, RemoteHash, RemoteJob, remote_path
from fileexport.client.pool import Pool
from fileexport.client.remote.opening import Opening
from fileexport.client.security import Security
from fileexport.paths import RelPath

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from fileexport.client.downloading import Destination
    from fileexport.client.remote.path import RemotePath
    from fileexport.client.sources import SourceTree

T = TypeVar("T")


class Client(Opening, Matching):
    """A client of one server. It connects at its first call, and again whenever it has to.

    `hostname` and `port` say where the server is, `token` who asks; the token itself never crosses the
    wire. `public_key` (a pin, ``sha256/…``), `ca_file`, or `tls=True` (the system's authorities) ask for
    TLS; without them only a server on this machine is spoken to, unless `tls=False` allows plain TCP to
    others. A `client_certificate` is a PEM file with key and certificate, for servers that want one.
    `compression` True or False decides whether DATA may be compressed; None: where the server is another
    machine.

    Time-outs are in milliseconds for each answer (at most 23 days), `timeout` where a call names none, 60 s
    where neither does. Each piece of progress begins a new one, and connecting is an answer too; what the
    caller does between two answers, in a callback or a loop, does not count. Remote paths are absolute.

    Raises ValueError for what contradicts itself. Each call may raise, besides what it says itself:

    - ValueError for a relative remote path and `FileNameError` for a name that cannot be one; nothing was
      sent.
    - `AuthenticationError` where the server or the token is not the right one.
    - `PermissionError`, `FileNotFoundError` and so on as the server says; `BusyError`, `OverloadedError`:
      try later.
    - `TimeoutError`, `ConnectionError`: whether a change was carried out is not known then.
    - `CorruptedResponse` where the server broke the protocol; `UnexpectedError` for what failed inside it.

    After each of them, also after `KeyboardInterrupt` and what a callback raises, the next call is carried
    out as if nothing had been: what was under way is cancelled, or its connection dropped.

    Each call in progress has a connection of its own: calls may be made from a callback, while an iterator is
    open, and in several threads. After a fork the child makes connections of its own. Iterators hold their
    connection until they end or are closed. `close`, or a `with` block, closes the idle ones.
    """

    def __init__(
        self,
        hostname: str,
        port: int = 6768,
        token: str | None = None,
        *,
        public_key: str | None = None,
        ca_file: PathText | None = None,
        tls: bool | None = None,
        timeout: float | None = None,
        compression: bool | None = None,
        client_certificate: PathText | None = None,
    ) -> None:
        Wait(timeout)
        self._timeout = timeout
        files = [None if one is None else os.fspath(one) for one in (ca_file, client_certificate)]
        security = Security(public_key, files[0], tls, files[1])
        self._pool = Pool(Server.of(hostname, port, token, security, compression))

    def close(self) -> None:
        """Close idle connections. A further call connects again."""
        self._pool.close()

    def path(self, path: PathText) -> RemotePath:
        """A path of this server with the interface of `pathlib`; raises ValueError as `RemotePath` does."""
        from fileexport.client.remote.path import RemotePath

        return RemotePath(path, client=self)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # Looking.

    def list_files(
        self, directory: PathText, timeout: float | None = None
    ) -> dict[str, tuple[bool, int, int]]:
        """What is in a directory: name → (is a directory, size in bytes, whole seconds of its mtime).

        Raises `FileNotFoundError`, `NotADirectoryError`.
        """
        return self._converse(talks.list_files(directory), timeout)

    def entries(
        self, directory: PathText, recursive: bool = False, timeout: float | None = None
    ) -> Iterator[RemoteEntry]:
        """What is in a directory, or with `recursive` below it, as it comes; links are not followed.

        Paths are seen from `directory`, parents come before children. Who takes the entries more slowly than
        the server waits (60 s, when it can send no more) gets `TimeoutError` or `ConnectionError`.
        """
        return self._pool.iterate(talks.entries(remote_path(directory), recursive), self._wait(timeout))

    def stat(self, path: PathText, timeout: float | None = None) -> RemoteEntry:
        """What a path is; a link is a link. Raises `FileNotFoundError`."""
        return self._converse(talks.stat(path), timeout)

    def read(self, path: PathText, timeout: float | None = None) -> Iterator[bytes]:
        """The content of a file in pieces of any size, as it comes.

        At the end `ChangedWhileRead` where the pieces together are not one version of the file. Who takes
        them more slowly than the server waits gets `TimeoutError` or `ConnectionError`, as in `entries`.
        """
        return self._pool.iterate(talks.content(remote_path(path)), self._wait(timeout))

    def hashes(self, path: PathText, timeout: float | None = None) -> Iterator[RemoteHash]:
        """Size and BLAKE3 of a file, or of every file below a directory, as the server calculates them."""
        return self._pool.iterate(talks.hashes(remote_path(path)), self._wait(timeout))

    # Changing.

    def create_file(
        self, name: str, directory: PathText, timeout: float | None = None, exist_ok: bool = False
    ) -> None:
        """Make an empty file. Raises `FileExistsError`, `DestinationNotFound`.

        With `exist_ok` a file that is there stays as it is.
        """
        self._converse(talks.create_file(name, directory, exist_ok), timeout)

    def make_directory(
        self, name: str, directory: PathText, timeout: float | None = None, exist_ok: bool = False
    ) -> None:
        """Make a directory. Raises `FileExistsError`, `DestinationNotFound`.

        With `exist_ok` a directory that is there stays as it is.
        """
        self._converse(talks.make_directory(name, directory, exist_ok), timeout)

    def make_directories(
        self, paths: Sequence[PathText], timeout: float | None = None
    ) -> list[Exception | None]:
        """Make many directories, parents first; those that are there stay. Each: None, or what went wrong."""
        from fileexport.client.directories import make_directories

        return make_directories(
            self._pool, [remote_path(path) for path in paths], lambda: self._wait(timeout)
        )

    def rename(self, path: PathText, new_path: PathText, timeout: float | None = None) -> None:
        """Give a file or directory another path in one step; `FileNotFoundError`, `FileExistsError`."""
        self.move(path, new_path, timeout=timeout)

    def move(
        self, path: PathText, new_path: PathText, replace: bool = False, timeout: float | None = None
    ) -> None:
        """As `rename`; with `replace`, a file that has the new path is replaced.

        `DestinationNotFound` names the directory that is missing, `FileExistsError` the new path.
        """
        self._converse(talks.move(path, new_path, replace), timeout)

    def delete_file(self, name: str, directory: PathText, timeout: float | None = None) -> None:
        """Remove a file, or a directory with its contents. Raises `FileNotFoundError`."""
        self._converse(talks.delete_file(name, directory), timeout)

    def remove(self, path: PathText, recursive: bool = False, timeout: float | None = None) -> int:
        """Remove a file, an empty directory, or with `recursive` a directory with its contents.

        Returns exactly how many files and directories are gone. Raises `FileNotFoundError`, and
        `IsADirectoryError` for a directory that is not empty. After an error some may be gone.
        """
        return self._converse(talks.remove(path, recursive), timeout)

    # Transfers.

    def upload_file(
        self,
        source: PathText,
        destination: PathText,
        name: str | None = None,
        chunk_size: int | None = None,
        process_chunk: ProcessChunk | None = None,
        timeout: float | None = None,
        *,
        replace: bool = False,
        progress: Progress | None = None,
        keep_mode: bool = False,
        tree: SourceTree | None = None,
    ) -> bool:
        """Send a file into a remote directory, its modification time too.

        `process_chunk(chunk_data, remaining_bytes, file_size, file_name)` sees each chunk, of `chunk_size`
        (512 bytes to 1 MiB, and no more than the server takes; 64 KiB where it is not given) but the last;
        what is False, but not None, cancels: then False is returned, otherwise True. `progress(bytes_done,
        size)` is called about once a MiB. Without `process_chunk` `chunk_size` means nothing.

        With `keep_mode` the permissions go with it; otherwise it gets those of the file that it replaces, or
        what is usual there. A source that lies in a `tree` is opened through no link below the top of that.

        The server waits 60 s for what comes next. Where a callback takes longer, the upload goes on as after
        a cut: by another operation, which can be refused, and for a small file from its beginning.

        When it returns True the file is committed. Cut connections are survived: it goes on where the
        server is. Raises `SourceNotFound`, `IsADirectoryError`, `DestinationNotFound`; `FileExistsError`
        unless `replace`; `ChangedWhileRead` when the source changes twice meanwhile; ValueError for a chunk
        size. After an error, or a cancel, the name holds what it held before. What the server has of a
        large file whose connection broke waits a day for the next call; after a cancel, or what a callback
        raises, it is gone.
        """
        local = os.fspath(source)
        target = remote_path(destination) / (name if name is not None else os.path.basename(local))
        manner = self._manner(chunk_size, process_chunk, timeout, replace, progress, keep_mode)
        from fileexport.client.uploading import upload

        return upload(self._pool, local, target, manner._replace(tree=tree))

    def download_file(
        self,
        source: PathText,
        destination: PathText,
        name: str | None = None,
        chunk_size: int | None = None,
        process_chunk: ProcessChunk | None = None,
        timeout: float | None = None,
        *,
        replace: bool = False,
        progress: Progress | None = None,
        keep_mode: bool = False,
    ) -> bool:
        """Fetch a file into a directory here, its modification time too; parameters as for `upload_file`.

        The file appears when it is complete and its hash is the server's. Cut connections are survived.
        Raises `SourceNotFound`, `IsADirectoryError`, `DestinationNotFound`; `FileExistsError` unless
        `replace`; `ChangedWhileRead` when the file changes twice meanwhile. After an error, or a cancel,
        the name holds what it held before; what came of a large file whose connection broke waits in
        `.fileexport/` for a day.
        """
        asked = remote_path(source)
        path = RelPath((name if name is not None else asked.name,))
        manner = self._manner(chunk_size, process_chunk, timeout, replace, progress, keep_mode)
        from fileexport.client.downloading import Destination, download

        with Destination(os.fspath(destination)) as place:
            return download(self._pool, asked, place, path, manner)

    def upload_directory(
        self,
        source: PathText,
        destination: PathText,
        name: str | None = None,
        chunk_size: int | None = None,
        process_chunk: ProcessChunk | None = None,
        timeout: float | None = None,
    ) -> bool:
        """Send a directory with its structure into a remote directory; parameters as for `upload_file`.

        `process_chunk` gets each file's path below the new directory as its name. Links, and what is
        neither file nor directory, are left out. Raises as `upload_file`, `NotADirectoryError`, and
        `FileExistsError` where the new directory's name is taken. After an error, or a cancel, files that
        were done stay.
        """
        local = os.fspath(source)
        target = remote_path(destination) / (
            name if name is not None else os.path.basename(local.rstrip("/"))
        )
        manner = self._manner(chunk_size, process_chunk, timeout)
        from fileexport.client.directories import upload_directory

        return upload_directory(self._pool, local, target, manner)

    def download_directory(
        self,
        source: PathText,
        destination: PathText,
        name: str | None = None,
        chunk_size: int | None = None,
        process_chunk: ProcessChunk | None = None,
        timeout: float | None = None,
    ) -> bool:
        """Fetch a directory with its structure into a directory here; otherwise as `upload_directory`.

        Nothing is written outside the new directory, whatever the server says.
        """
        asked = remote_path(source)
        path = RelPath((name if name is not None else asked.name,))
        manner = self._manner(chunk_size, process_chunk, timeout)
        from fileexport.client.directories import download_directory
        from fileexport.client.downloading import Destination

        with Destination(os.fspath(destination)) as place:
            return download_directory(self._pool, asked, place, path, manner)

    def upload_small(
        self,
        files: Iterable[LocalFile],
        directory: PathText,
        replace: bool = False,
        timeout: float | None = None,
        *,
        modes: bool = False,
    ) -> Iterator[Outcome]:
        """Send many files of at most 64 KiB below a remote directory, whose subdirectories are there.

        They are read while others are on their way. Yields what became of each, in any order; what cannot be
        read, is too large (ValueError) or is refused is an outcome, not an exception. Cut connections are
        survived. When the iterator is closed early, files without an outcome may or may not be committed.
        With `modes` their permissions go with them.
        """
        from fileexport.client.small_files import upload_small

        asked, wait = remote_path(directory), lambda: self._wait(timeout)
        return upload_small(self._pool, files, asked, replace, wait, modes=modes)

    def download_small(
        self,
        files: Iterable[LocalFile],
        directory: PathText,
        replace: bool = False,
        timeout: float | None = None,
        *,
        modes: bool = False,
        place: Destination | None = None,
    ) -> Iterator[Outcome]:
        """Fetch many files of at most 64 KiB from below a remote directory to where each belongs here.

        The directories here are there. Yields what became of each, as `upload_small` does; with `modes` as
        there. With a `place` that is open, `local` of each file is its path in that (``a/b``).
        """
        from fileexport.client.small_files import download_small

        asked, wait = remote_path(directory), lambda: self._wait(timeout)
        return download_small(self._pool, files, asked, replace, wait, modes=modes, place=place)

    # Jobs.

    def compress(self, path: PathText, format: Format = "tar.gz", timeout: float | None = None) -> RemoteJob:
        """Ask for an archive beside a file or directory; returns the job that makes it."""
        return self._converse(talks.compress(path, format), timeout)

    def jobs(self, limit: int = 100, timeout: float | None = None) -> list[RemoteJob]:
        """The newest of the token's jobs, at most `limit` (1 to 1,000), the newest first."""
        return self._converse(talks.jobs(limit), timeout)

    def job(self, id: str, wait: int = 0, timeout: float | None = None) -> RemoteJob:
        """A job, when it has ended or after `wait` seconds (0 to 60). Raises `FileNotFoundError`."""
        return self._converse(talks.job(id, wait), timeout)

    def cancel(self, id: str, timeout: float | None = None) -> RemoteJob:
        """End a job; returns it as it is then. Raises `FileNotFoundError`."""
        return self._converse(talks.cancel(id), timeout)

    # Inside.

    def _converse(self, talk: talks.Talk[T], timeout: float | None) -> T:
        return self._pool.converse(talk, self._wait(timeout))

    def _manner(
        self,
        chunk_size: int | None,
        process: ProcessChunk | None,
        timeout: float | None,
        replace: bool = False,
        progress: Progress | None = None,
        keep_mode: bool = False,
    ) -> Manner:
        """Refuse a chunk size that is none; with a callback also one that the server does not take."""
        size = DEFAULT_CHUNK if chunk_size is None else chunk_size
        check_chunk_size(size)
        wait = self._wait(timeout)
        if process is not None and size > (most := self._pool.largest_data(wait)):
            if chunk_size is not None:
                raise ValueError(f"this server takes chunks of at most {most} bytes, not of {size}")
            size = most
        return Manner(lambda: self._wait(timeout), replace, size, process, progress, keep_mode=keep_mode)
