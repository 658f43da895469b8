"""The verbs that a synchronisation is made of: trees, hashes, changes, and files by their differences."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from os import PathLike, fspath
from typing import TYPE_CHECKING

from fileexport.client.chunks import Manner, Progress
from fileexport.client.connection import Wait
from fileexport.client.names import RemoteHash, below, remote_path
from fileexport.client.pool import Pool

if TYPE_CHECKING:
    from fileexport.client.downloading import Destination
    from fileexport.client.sources import SourceTree
    from fileexport.sync.manifest import Entry, Manifest
    from fileexport.wire import messages as m

PathText = str | PathLike[str]


class Matching:
    """What a synchronisation asks of a server; `Client` is one. Raises as that says."""

    _pool: Pool
    _timeout: float | None

    def _wait(self, timeout: float | None, extra: float = 0) -> Wait:
        return Wait(self._timeout if timeout is None else timeout, extra)

    @property
    def traffic(self) -> tuple[int, int]:
        """Bytes that were sent, and that came: all that was said on all connections, before TLS."""
        return self._pool.traffic.both

    def manifest(self, directory: PathText, timeout: float | None = None) -> Manifest:
        """What lies in a directory and below it; links are not followed. Raises `NotADirectoryError`.

        Its `top` is None where there is no such directory.
        """
        return self.begin_manifest(directory, timeout)()

    def begin_manifest(self, directory: PathText, timeout: float | None = None) -> Callable[[], Manifest]:
        """As `manifest`, in two steps: the server is at work until what is returned is called, once."""
        from fileexport.client.trees import begin_manifest

        return begin_manifest(self._pool, remote_path(directory), lambda: self._wait(timeout))

    def hash_files(
        self, paths: Iterable[PathText], fresh: bool = False, timeout: float | None = None
    ) -> Iterator[RemoteHash]:
        """Size and BLAKE3 of many files, each with its absolute path, in any order.

        What cannot be read is left out. `fresh` has the server read them, whatever it remembers.
        """
        from fileexport.client.trees import hash_files

        return hash_files(self._pool, map(remote_path, paths), fresh, lambda: self._wait(timeout))

    def read_files(
        self, paths: Iterable[PathText], timeout: float | None = None
    ) -> Iterator[tuple[str, bytes | Exception]]:
        """Content of many files of at most 64 KiB, each with its absolute path, or what went wrong."""
        from fileexport.client.trees import read_files

        return read_files(self._pool, map(remote_path, paths), lambda: self._wait(timeout))

    def change(self, steps: Sequence[m.AnyStep], timeout: float | None = None) -> Iterator[Exception | None]:
        """Make many small changes, in their order. Yields for each: None, or what went wrong.

        They are made while the iterator is read. Cut connections are survived.
        """
        from fileexport.client.trees import change

        return change(self._pool, steps, lambda: self._wait(timeout))

    def upload_changes(
        self,
        source: PathText,
        target: PathText,
        bases: Sequence[PathText],
        *,
        progress: Progress | None = None,
        timeout: float | None = None,
        tree: SourceTree | None = None,
    ) -> int:
        """Send a file so that it is `target`, time and permissions too; what had the name is replaced.

        Parts of it that the remote files `bases` hold (at most 16) do not travel. Returns how many bytes of
        content did. Otherwise as `upload_file`.
        """
        from fileexport.client.delta import upload_changes

        manner = Manner(
            lambda: self._wait(timeout), replace=True, progress=progress, keep_mode=True, tree=tree
        )
        where = remote_path(target)
        return upload_changes(self._pool, fspath(source), where, [*map(remote_path, bases)], manner)

    def download_changes(
        self,
        source: PathText,
        place: Destination,
        path: str,
        bases: Sequence[str],
        *,
        progress: Progress | None = None,
        timeout: float | None = None,
    ) -> int:
        """Fetch a file so that it is `path` in `place`, time and permissions too, replacing what is there.

        Parts of it that `bases` hold, files in `place` too, do not travel. Returns how many bytes of content
        did. Otherwise as `download_file`.
        """
        from fileexport.client.delta import download_changes

        manner = Manner(lambda: self._wait(timeout), replace=True, progress=progress, keep_mode=True)
        return download_changes(
            self._pool, remote_path(source), place, below(path), [*map(below, bases)], manner
        )

    def copy(
        self, path: PathText, target: PathText, entry: Entry, digest: bytes, timeout: float | None = None
    ) -> None:
        """Have the server copy a file; `entry` and `digest` say what the copy, and so the file, is.

        What has the name is replaced. Raises `ChangedWhileRead` where the file is another one.
        """
        from fileexport.client.delta import copy

        copy(self._pool, remote_path(path), remote_path(target), entry, digest, lambda: self._wait(timeout))
