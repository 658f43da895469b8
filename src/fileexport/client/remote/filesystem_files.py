"""The files that `FileExportFileSystem.open` gives: those of `fileexport.open`, as fsspec expects them."""

from __future__ import annotations

import io
import warnings
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from fsspec.spec import AbstractBufferedFile
from fsspec.transaction import Transaction

from fileexport.client.remote.files import reader, writer
from fileexport.client.remote.writing import BufferedRemoteWriter, Committing

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

    from fileexport.client.remote.filesystem import FileExportFileSystem
    from fileexport.client.remote.reading import RemoteReader

#: Bytes of a buffer where nobody says otherwise.
_BUFFER = 1 << 20


class ReadFile(io.BufferedReader):
    """A file that is read. Pickled, it is opened anew and goes on at its position."""

    raw: RemoteReader

    def __init__(self, fs: FileExportFileSystem, path: str, block_size: int | None = None) -> None:
        """Raises as `FileExportFileSystem.open`."""
        self.fs = fs
        self.path = path
        self.blocksize = block_size or _BUFFER
        super().__init__(reader(fs.client, path, ahead=self.blocksize), self.blocksize)

    @property
    def size(self) -> int:
        """In bytes."""
        return self.raw.size

    @property
    def full_name(self) -> str:
        """Its URL."""
        return self.fs.unstrip_protocol(self.path)

    @property
    def details(self) -> dict[str, Any]:
        """What `FileExportFileSystem.info` says of the path now."""
        return self.fs.info(self.path)

    def info(self) -> dict[str, Any]:
        """The same, as fsspec's own files have it."""
        return self.details

    def __reduce__(self) -> tuple[Any, ...]:
        return _read_again, (self.fs, self.path, self.blocksize, self.tell())


def _read_again(fs: FileExportFileSystem, path: str, block_size: int, position: int) -> ReadFile:
    file = ReadFile(fs, path, block_size)
    file.seek(position)
    return file


class CachedFile(AbstractBufferedFile):
    """A file that is read through a cache of fsspec: all of one version, as `RemoteReader` says."""

    def __init__(
        self, fs: FileExportFileSystem, path: str, block_size: int | None, cache_type: str, **options: Any
    ) -> None:
        """Raises as `FileExportFileSystem.open`; the `options` are those of fsspec's own."""
        self._reader = reader(fs.client, path, in_parts=True)
        options["size"] = self._reader.size
        try:
            super().__init__(fs, path, "rb", block_size, cache_type=cache_type, **options)
        except BaseException:
            self._reader.close()
            raise

    def _fetch_range(self, start: int, end: int) -> bytes:
        return self._reader.pread(max(end - start, 0), start)

    def close(self) -> None:
        """Let go of the cache and the file."""
        try:
            super().close()
        finally:
            if self.closed:
                self._reader.close()


class WrittenFile(BufferedRemoteWriter):
    """A file that is written; without `commits`, one of a transaction, which is committed when that ends."""

    def __init__(
        self,
        fs: FileExportFileSystem,
        path: str,
        block_size: int | None = None,
        *,
        exclusive: bool = False,
        commits: bool = True,
    ) -> None:
        """Raises as `FileExportFileSystem.open`."""
        self.fs = fs
        self.path = path
        self.blocksize = block_size or _BUFFER
        super().__init__(writer(fs.client, path, exclusive=exclusive, commits=commits), self.blocksize)

    @property
    def full_name(self) -> str:
        """Its URL."""
        return self.fs.unstrip_protocol(self.path)

    def commit(self) -> None:
        """End the writing, and have it sent; nothing where it was discarded."""
        self.close()
        self.raw.commit()


class PackedFile(Committing, io.BufferedIOBase):
    """What is written to `packer` comes out of it into `file`, and is closed or discarded with it."""

    def __init__(self, packer: Any, file: WrittenFile) -> None:
        self._packer = packer
        self._file = file
        self._is_packed = False

    @property
    def name(self) -> str:
        """The path."""
        return self._file.path

    def writable(self) -> bool:
        """It is."""
        return True

    def write(self, data: ReadableBuffer, /) -> int:
        """Pack some bytes; returns how many."""
        return int(self._packer.write(data))

    def flush(self) -> None:
        """Pack what was written until now."""
        if not self._is_packed:
            self._packer.flush()

    def close(self) -> None:
        """Commit all that was written, or keep it for the transaction."""
        try:
            self._finish()
        except BaseException:
            self._file.discard()
            super().close()
            raise
        try:
            self._file.close()
        finally:
            if self._file.closed:
                super().close()

    def discard(self) -> None:
        """Close, and throw away what was written."""
        with suppress(Exception):
            self._finish()
        self._file.discard()
        self.close()

    def _finish(self) -> None:
        """Have what the packer still holds come out of it, once."""
        if not self._is_packed:
            self._is_packed = True
            self._packer.close()


class Together(Transaction):
    """A transaction: files that are committed at its end, one after the other. It ends in any case."""

    _has_begun = False

    def start(self) -> None:
        """Begin. Raises RuntimeError within it: there is one at a time."""
        if self._has_begun:
            raise RuntimeError("a transaction of this file system is under way: end it first")
        self._has_begun = True
        super().start()

    def complete(self, commit: bool = True) -> None:
        """Commit what was closed, or discard; after one that cannot be committed, those that follow too.

        What is still open is discarded: whoever writes to it may hold some of its content.
        fsspec's own left the file system inside the transaction then, before its version 2026.9: what was
        written next was committed by nobody.
        """
        fs, files = self.fs, list(self.files)
        self.files.clear()
        self.files.extend(file for file in files if file.closed)
        if commit and (left := [file.path for file in files if not file.closed]):
            warnings.warn(
                f"{left[0]} was not closed within the transaction: nothing is written", ResourceWarning, 3
            )
        try:
            super().complete(commit)
        finally:
            self.files.clear()
            for file in files:
                file.discard()
            if fs is not None:
                fs._intrans = False
                fs._transaction = None
