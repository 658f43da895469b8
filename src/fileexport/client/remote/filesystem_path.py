"""`FileExportPath`: the path of universal-pathlib for ``fileexport://host:port/path``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from glob import escape, has_magic
from typing import TYPE_CHECKING, Any, Self, cast

from fsspec import register_implementation
from upath import UPath
from upath.types import WritablePathLike

from fileexport.client.environment import PORT
from fileexport.client.remote.filesystem import FileExportFileSystem
from fileexport.client.remote.filesystem_looking import in_full
from fileexport.client.remote.names import SCHEME, is_url, read_place, url_of
from fileexport.paths import quote_name

if TYPE_CHECKING:
    from fileexport.client.remote.path import RemotePath

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

    def with_segments(self, *pathsegments: Any) -> Self:
        """A path of the same server. Raises ValueError for a path or a URL of another one."""
        for one in pathsegments:
            self._check_here(one)
        return super().with_segments(*pathsegments)

    def _check_here(self, other: object) -> None:
        if not self._is_here(other):
            raise ValueError("a path of another server cannot become one of this")

    def _is_here(self, other: object) -> bool:
        """Whether a path, or a URL, is of this server; what a URL leaves out is the same."""
        if isinstance(other, FileExportPath):
            return other.storage_options == self.storage_options or other._server == self._server
        if not (isinstance(other, str) and is_url(other)):
            return not isinstance(other, UPath)
        place = read_place(other)
        if place.hostname is None:
            return place.port in (None, self._server[1])
        return (in_full(place.hostname).lower(), place.port or PORT) == self._server

    @property
    def _server(self) -> tuple[str, int]:
        """Host and port in one spelling. Raises ValueError where the environment names no server."""
        if hostname := self.storage_options.get("hostname"):
            return in_full(hostname).lower(), self.storage_options.get("port") or PORT
        hostname, port = self.fs.server
        return in_full(hostname).lower(), port

    @property
    def _remote(self) -> RemotePath:
        """The same path as one of pathlib's manner."""
        path: RemotePath = self.fs.client.path(self.path)
        return path

    def touch(self, mode: int = 0o666, exist_ok: bool = True) -> None:
        """Make an empty file; one that is there gets this machine's time. Raises as `RemotePath.touch`."""
        self.fs._with_parents(self.path, lambda: self._remote.touch(mode, exist_ok))

    def unlink(self, missing_ok: bool = False) -> None:
        """Remove a file or link. Raises `FileNotFoundError`, `IsADirectoryError`."""
        self._remote.unlink(missing_ok)

    def rmdir(self, recursive: bool = False) -> None:
        """Remove an empty directory, with `recursive` also one that is not. Raises `OSError` (ENOTEMPTY)."""
        if recursive and self.fs.client.stat(self.path).type == "directory":
            self.fs.client.remove(self.path, recursive=True)
        else:
            self._remote.rmdir()

    def glob(self, pattern: str, **options: Any) -> Iterator[Self]:
        """What a pattern names below this very path: its own name is none."""
        if not has_magic(self.path):
            return super().glob(pattern, **options)
        return self._named(pattern)

    def rglob(self, pattern: str, **options: Any) -> Iterator[Self]:
        """As `glob` with ``**/`` in front of the pattern."""
        if not has_magic(self.path):
            return super().rglob(pattern, **options)
        return self._named(f"**/{pattern}")

    def _named(self, pattern: str) -> Iterator[Self]:
        top = self.absolute()
        for name in self.fs.glob(f"{escape(top.path)}/{pattern}"):
            yield top / name[len(top.path) :].strip("/")

    def move(self, target: Any, **kwargs: Any) -> Any:
        """Give it another path, which is returned; an existing file is replaced.

        On the same server as `rename` does. To elsewhere it is copied, as `copy` does, and then removed:
        after an error it is still here, and a part of it may be there.
        """
        if isinstance(target, str) and is_url(target):
            target = self.with_segments(target)
        if isinstance(target, FileExportPath) and self._is_here(target):
            return self.rename(target)
        new = self.copy(target, **kwargs)
        self.fs.client.remove(self.path, recursive=True)
        return new

    def rename(self, target: WritablePathLike, **kwargs: Any) -> Self:
        """Give it another path on its server, which is returned; an existing file is replaced.

        Raises ValueError for one on another server, and as `RemotePath.replace`.
        """
        if isinstance(target, UPath):
            self._check_here(target)
            new = cast("Self", target)
        elif is_url(text := os.fspath(cast("str", target))) or text.startswith("/"):
            new = self.with_segments(text)
        else:
            # There is no current directory: it says so.
            return super().rename(target, **kwargs)
        self._remote.replace(new.path)
        return new

    def replace(self, target: WritablePathLike) -> Self:
        """The same."""
        return self.rename(target)
