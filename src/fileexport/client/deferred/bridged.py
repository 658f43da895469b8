"""The verbs of `AsyncClient` that are the blocking client's own code in threads: transfers, trees, iterators.

What they do, take, return and raise is what the method of this name of `Client` says, or the function of
`fileexport`. Callbacks are called in the reactor's thread, and may return Deferreds; iterables that are given
are stepped through in a thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from os import PathLike
from typing import TYPE_CHECKING, TypeVar

from twisted.internet.defer import Deferred

from fileexport.client.chunks import ProcessChunk, Progress
from fileexport.client.deferred.bridge import Bridge, Results, Stepping
from fileexport.client.moving import ProcessFile
from fileexport.client.names import LocalFile, Outcome, RemoteHash
from fileexport.client.selection import Conflict

if TYPE_CHECKING:
    from fileexport.client.downloading import Destination
    from fileexport.client.sources import SourceTree
    from fileexport.client.syncing import SyncProgress, SyncResult
    from fileexport.sync.manifest import Entry, Manifest
    from fileexport.wire import messages as m

T = TypeVar("T")
PathText = str | PathLike[str]


class Bridged:
    """Those verbs. A Deferred that is cancelled ends what it stands for, as what a callback raises does."""

    _bridge: Bridge

    def _run(self, call: Callable[[], T]) -> Deferred[T]:
        return self._bridge.run(call)

    def _step(self, make: Callable[[], Iterator[T]]) -> Results[T]:
        return Results(self._bridge.reactor, Stepping(self._bridge, make))

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
    ) -> Deferred[bool]:
        """As `Client.upload_file`."""
        here = self._bridge.here
        call = partial(self._bridge.client.upload_file, source, destination, name, chunk_size)
        seen = here(process_chunk), timeout
        more = partial(call, *seen, replace=replace, progress=here(progress), keep_mode=keep_mode)
        return self._run(partial(more, tree=tree))

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
    ) -> Deferred[bool]:
        """As `Client.download_file`."""
        here = self._bridge.here
        call = partial(self._bridge.client.download_file, source, destination, name, chunk_size)
        seen = here(process_chunk), timeout
        return self._run(partial(call, *seen, replace=replace, progress=here(progress), keep_mode=keep_mode))

    def upload_directory(
        self,
        source: PathText,
        destination: PathText,
        name: str | None = None,
        chunk_size: int | None = None,
        process_chunk: ProcessChunk | None = None,
        timeout: float | None = None,
    ) -> Deferred[bool]:
        """As `Client.upload_directory`."""
        call = partial(self._bridge.client.upload_directory, source, destination, name, chunk_size)
        return self._run(partial(call, self._bridge.here(process_chunk), timeout))

    def download_directory(
        self,
        source: PathText,
        destination: PathText,
        name: str | None = None,
        chunk_size: int | None = None,
        process_chunk: ProcessChunk | None = None,
        timeout: float | None = None,
    ) -> Deferred[bool]:
        """As `Client.download_directory`."""
        call = partial(self._bridge.client.download_directory, source, destination, name, chunk_size)
        return self._run(partial(call, self._bridge.here(process_chunk), timeout))

    def upload_small(
        self,
        files: Iterable[LocalFile],
        directory: PathText,
        replace: bool = False,
        timeout: float | None = None,
        *,
        modes: bool = False,
    ) -> Results[Outcome]:
        """As `Client.upload_small`: an async iterator."""
        call = self._bridge.client.upload_small
        return self._step(partial(call, files, directory, replace, timeout, modes=modes))

    def download_small(
        self,
        files: Iterable[LocalFile],
        directory: PathText,
        replace: bool = False,
        timeout: float | None = None,
        *,
        modes: bool = False,
        place: Destination | None = None,
    ) -> Results[Outcome]:
        """As `Client.download_small`: an async iterator."""
        call = self._bridge.client.download_small
        return self._step(partial(call, files, directory, replace, timeout, modes=modes, place=place))

    def make_directories(
        self, paths: Sequence[PathText], timeout: float | None = None
    ) -> Deferred[list[Exception | None]]:
        """As `Client.make_directories`."""
        return self._run(partial(self._bridge.client.make_directories, paths, timeout))

    # Many files.

    def upload_files(
        self,
        source: PathText | Iterable[PathText],
        destination: PathText,
        relative_directory: PathText | None = None,
        *,
        exclude_files: Iterable[str] = (),
        recursive: bool = False,
        process_file: ProcessFile | None = None,
        process_conflict: Conflict = "abort",
        chunk_size: int | None = None,
        process_chunk: ProcessChunk | None = None,
        timeout: int | None = None,
    ) -> Deferred[bool]:
        """As `fileexport.upload_files`."""
        from fileexport.client.transfers import upload_files

        here = self._bridge.here
        call = partial(upload_files, self._bridge.client, source, destination, relative_directory)
        how = partial(call, exclude_files=exclude_files, recursive=recursive, chunk_size=chunk_size)
        asking = partial(how, process_file=here(process_file), process_conflict=process_conflict)
        return self._run(partial(asking, process_chunk=here(process_chunk), timeout=timeout))

    def download_files(
        self,
        source: PathText | Iterable[PathText],
        destination: PathText,
        relative_directory: PathText | None = None,
        *,
        exclude_files: Iterable[str] = (),
        recursive: bool = False,
        process_file: ProcessFile | None = None,
        process_conflict: Conflict = "abort",
        chunk_size: int | None = None,
        process_chunk: ProcessChunk | None = None,
        timeout: int | None = None,
    ) -> Deferred[bool]:
        """As `fileexport.download_files`."""
        from fileexport.client.transfers import download_files

        here = self._bridge.here
        call = partial(download_files, self._bridge.client, source, destination, relative_directory)
        how = partial(call, exclude_files=exclude_files, recursive=recursive, chunk_size=chunk_size)
        asking = partial(how, process_file=here(process_file), process_conflict=process_conflict)
        return self._run(partial(asking, process_chunk=here(process_chunk), timeout=timeout))

    def synchronize_upload(
        self,
        source: PathText,
        destination: PathText,
        *,
        delete: bool = False,
        max_delete: str | int = "50%",
        exclude: Iterable[str] = (),
        include: Iterable[str] = (),
        gitignore: bool = False,
        checksum: bool = False,
        dry_run: bool = False,
        progress: Callable[[SyncProgress], object] | None = None,
        timeout: int | None = None,
    ) -> Deferred[SyncResult]:
        """As `fileexport.synchronize_upload`."""
        from fileexport.client.syncing import synchronize_upload

        call = partial(synchronize_upload, self._bridge.client, source, destination)
        rules = partial(call, delete=delete, max_delete=max_delete, exclude=exclude, include=include)
        how = partial(rules, gitignore=gitignore, checksum=checksum, dry_run=dry_run)
        return self._run(partial(how, progress=self._bridge.here(progress), timeout=timeout))

    def synchronize_download(
        self,
        source: PathText,
        destination: PathText,
        *,
        delete: bool = False,
        max_delete: str | int = "50%",
        exclude: Iterable[str] = (),
        include: Iterable[str] = (),
        gitignore: bool = False,
        checksum: bool = False,
        dry_run: bool = False,
        progress: Callable[[SyncProgress], object] | None = None,
        timeout: int | None = None,
    ) -> Deferred[SyncResult]:
        """As `fileexport.synchronize_download`."""
        from fileexport.client.syncing import synchronize_download

        call = partial(synchronize_download, self._bridge.client, source, destination)
        rules = partial(call, delete=delete, max_delete=max_delete, exclude=exclude, include=include)
        how = partial(rules, gitignore=gitignore, checksum=checksum, dry_run=dry_run)
        return self._run(partial(how, progress=self._bridge.here(progress), timeout=timeout))

    # What a synchronisation is made of.

    @property
    def traffic(self) -> tuple[int, int]:
        """Bytes that were sent, and that came, before TLS."""
        return self._bridge.pool.traffic.both

    def manifest(self, directory: PathText, timeout: float | None = None) -> Deferred[Manifest]:
        """As `Client.manifest`."""
        return self._run(partial(self._bridge.client.manifest, directory, timeout))

    def begin_manifest(
        self, directory: PathText, timeout: float | None = None
    ) -> Deferred[Callable[[], Deferred[Manifest]]]:
        """As `Client.begin_manifest`; what it fires with returns a Deferred."""
        job = self._bridge.job()
        begun = self._bridge.run(partial(self._bridge.client.begin_manifest, directory, timeout), job)
        return begun.addCallback(lambda finish: partial(self._bridge.run, finish, job))

    def hash_files(
        self, paths: Iterable[PathText], fresh: bool = False, timeout: float | None = None
    ) -> Results[RemoteHash]:
        """As `Client.hash_files`: an async iterator."""
        return self._step(partial(self._bridge.client.hash_files, paths, fresh, timeout))

    def read_files(
        self, paths: Iterable[PathText], timeout: float | None = None
    ) -> Results[tuple[str, bytes | Exception]]:
        """As `Client.read_files`: an async iterator."""
        return self._step(partial(self._bridge.client.read_files, paths, timeout))

    def change(self, steps: Sequence[m.AnyStep], timeout: float | None = None) -> Results[Exception | None]:
        """As `Client.change`: an async iterator. Changes are made ahead of who reads it."""
        return self._step(partial(self._bridge.client.change, steps, timeout))

    def upload_changes(
        self,
        source: PathText,
        target: PathText,
        bases: Sequence[PathText],
        *,
        progress: Progress | None = None,
        timeout: float | None = None,
        tree: SourceTree | None = None,
    ) -> Deferred[int]:
        """As `Client.upload_changes`."""
        call = partial(self._bridge.client.upload_changes, source, target, bases)
        return self._run(partial(call, progress=self._bridge.here(progress), timeout=timeout, tree=tree))

    def download_changes(
        self,
        source: PathText,
        place: Destination,
        path: str,
        bases: Sequence[str],
        *,
        progress: Progress | None = None,
        timeout: float | None = None,
    ) -> Deferred[int]:
        """As `Client.download_changes`."""
        call = partial(self._bridge.client.download_changes, source, place, path, bases)
        return self._run(partial(call, progress=self._bridge.here(progress), timeout=timeout))

    def copy(
        self, path: PathText, target: PathText, entry: Entry, digest: bytes, timeout: float | None = None
    ) -> Deferred[None]:
        """As `Client.copy`."""
        return self._run(partial(self._bridge.client.copy, path, target, entry, digest, timeout))
