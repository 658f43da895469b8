"""The files that `FileExportFileSystem.open` gives: those of `fileexport.open`, as fsspec expects them."""

from __future__ import annotations

import io
from contextlib import suppress
from typing import TYPE_CHECKING, Any

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
            self._file.close()
        except BaseException:
            self._file.discard()
            raise
        finally:
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

    def complete(self, commit: bool = True) -> None:
        """Commit, or discard; after one that cannot be committed, those that follow are discarded.

        fsspec's own left the file system inside the transaction then, before its version 2026.9: what was
        written next was committed by nobody.
        """
        fs, files = self.fs, list(self.files)
        try:
            super().complete(commit)
        finally:
            self.files.clear()
            for file in files:
                file.discard()
            if fs is not None:
                fs._intrans = False
                fs._transaction = None
