"""`FileExportPath`: the path of universal-pathlib for ``fileexport://host:port/path``."""

from __future__ import annotations

from typing import Any, Self

from fsspec import register_implementation
from upath import UPath
from upath.types import WritablePathLike

from fileexport.client.environment import PORT
from fileexport.client.remote.filesystem import FileExportFileSystem
from fileexport.client.remote.filesystem_looking import in_full
from fileexport.client.remote.names import SCHEME, is_url, url_of
from fileexport.paths import quote_name

# UPath takes URLs apart by the classes that fsspec has loaded, and otherwise by its own rules.
register_implementation("fileexport", FileExportFileSystem, clobber=True)


class FileExportPath(UPath):
    """A path of an exported directory; `FileExportFileSystem` carries out what is asked of it.

    What removes, renames or replaces does what pathlib does, also where other paths of UPath do more.
    """

    __slots__ = ()

    def __str__(self) -> str:
        """The URL, which names the server where the options do."""
        if not is_url(text := super().__str__()):
            return text
        hostname = self.storage_options.get("hostname")
        names = self.path.split("/")[1:]
        if not hostname:
            return f"{SCHEME}/{'/'.join(map(quote_name, names))}"
        return url_of(in_full(hostname), self.storage_options.get("port", PORT), names)

    def unlink(self, missing_ok: bool = False) -> None:
        """Remove a file or link. Raises `FileNotFoundError`, `IsADirectoryError`."""
        try:
            self.fs.rm_file(self.path)
        except FileNotFoundError:
            if not missing_ok:
                raise

    def rmdir(self, recursive: bool = False) -> None:
        """Remove an empty directory, with `recursive` also one that is not. Raises `OSError` (ENOTEMPTY)."""
        if recursive and self.is_dir():
            self.fs.rm(self.path, recursive=True)
        else:
            self.fs.rmdir(self.path)

    def rename(self, target: WritablePathLike, **kwargs: Any) -> Self:
        """Give it another path, which is returned; an existing file is replaced."""
        if isinstance(target, type(self)):
            new = target
        elif is_url(text := str(target)) or text.startswith("/"):
            new = self.with_segments(text)
        else:
            # There is no current directory: it says so.
            return super().rename(target, **kwargs)
        self.fs.client.move(self.path, new.path, replace=True)
        return new

    def replace(self, target: WritablePathLike) -> Self:
        """The same."""
        return self.rename(target)
