"""What fsspec asks of a file system before it reads: paths, URLs, what is where, and what lies below it."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from glob import has_magic
from ipaddress import IPv6Address
from typing import Any

from fsspec.spec import AbstractFileSystem
from fsspec.utils import stringify_path

from fileexport.client.blocking import Client
from fileexport.client.listings import Kept
from fileexport.client.matching import PathText
from fileexport.client.names import RemoteEntry
from fileexport.client.remote.calls import behind
from fileexport.client.remote.names import SCHEME, is_url, read_place, url_of
from fileexport.errors import FileNameError
from fileexport.paths import RelPath

#: What says that nothing is there, nor can be.
_ABSENT = (FileNotFoundError, NotADirectoryError, FileNameError)

Info = dict[str, Any]


class Looking(AbstractFileSystem):
    """The part of `FileExportFileSystem` that changes nothing. Raises as `Client`, and as that says."""

    protocol = "fileexport"
    root_marker = "/"
    client: Client
    #: Host and port, for URLs.
    server: tuple[str, int]

    # Paths.

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        """The absolute path that a path or URL means, no slash at its end; of a list, a list."""
        if isinstance(path, list):
            return [cls._strip_protocol(one) for one in path]
        text = str(stringify_path(path))
        return read_place(text).path if is_url(text) else "/" + re.sub("/+", "/", text).strip("/")

    @staticmethod
    def _get_kwargs_from_urls(path: str) -> dict[str, Any]:
        """The options that a URL holds."""
        if not is_url(path):
            return {}
        if path == f"{SCHEME}[":
            raise ValueError("'::' joins URLs for fsspec: write all eight numbers of an IPv6 address")
        place = read_place(path)
        found = {"hostname": place.hostname, "port": place.port}
        return {name: value for name, value in found.items() if value is not None}

    def unstrip_protocol(self, name: str) -> str:
        """The whole URL of a path."""
        if is_url(name):
            return name
        hostname, port = self.server
        return url_of(in_full(hostname), port, RelPath.parse(self._strip_protocol(name)))

    def to_dict(self, *, include_password: bool = True) -> dict[str, Any]:
        """As fsspec's; without passwords there is no token either."""
        found: dict[str, Any] = super().to_dict(include_password=include_password)
        if not include_password:
            found.pop("token", None)
        return found

    # Looking.

    def info(self, path: PathText, **kwargs: Any) -> Info:
        """What a path is, or a link leads to. Raises `FileNotFoundError`."""
        asked = self._strip_protocol(path)
        entry = self.client.stat(asked)
        if entry.type != "link":
            return _info(entry, asked)
        try:
            entry = behind(self.client._pool, RelPath.parse(asked), lambda: self.client._wait(None))
        except (*_ABSENT, PermissionError):
            pass  # It leads nowhere that may be seen: it remains a link.
        return _info(entry, asked) | {"islink": True}

    def ls(self, path: PathText, detail: bool = True, **kwargs: Any) -> list[Any]:
        """What is in a directory, sorted by name; of a file, itself."""
        asked = self._strip_protocol(path)
        try:
            found = list(self._listed(asked))
        except NotADirectoryError:
            found = [self.info(asked)]
        found.sort(key=_name)
        return found if detail else list(map(_name, found))

    def _listed(self, path: str, recursive: bool = False) -> Iterator[Info]:
        for entry in Kept().all(self.client.entries(path, recursive)):
            yield _info(entry, f"{path.rstrip('/')}/{entry.path}")

    def exists(self, path: PathText, **kwargs: Any) -> bool:
        """Whether there is something, and not only a link to nothing."""
        return self._type(path) not in (None, "link")

    def lexists(self, path: PathText, **kwargs: Any) -> bool:
        """Whether there is something, if only a link to nothing."""
        return self._type(path) is not None

    def isdir(self, path: PathText) -> bool:
        """Whether it is a directory, or a link to one."""
        return self._type(path) == "directory"

    def isfile(self, path: PathText) -> bool:
        """Whether it is a file, or a link to one."""
        return self._type(path) == "file"

    def _type(self, path: PathText) -> str | None:
        try:
            return str(self.info(path)["type"])
        except _ABSENT:
            return None

    def expand_path(
        self,
        path: Any,
        recursive: bool = False,
        maxdepth: int | None = None,
        assume_literal: bool = False,
        **kwargs: Any,
    ) -> list[str]:
        """What paths stand for, sorted; one that is there as it is written is no pattern.

        Raises `FileNotFoundError` where they stand for nothing.
        """
        names: list[str] = []
        patterns: list[str] = []
        for one in [path] if isinstance(path, str | os.PathLike) else path:
            asked = self._strip_protocol(one)
            is_name = assume_literal or not self._is_pattern(asked)
            (names if is_name else patterns).append(asked)
        if not names or not patterns:
            both, is_literal = names or patterns, not patterns
            found: list[str] = super().expand_path(both, recursive, maxdepth, is_literal, **kwargs)
            return found
        several = set()
        for some, is_literal in ((names, True), (patterns, False)):
            with suppress(FileNotFoundError):
                several.update(super().expand_path(some, recursive, maxdepth, is_literal, **kwargs))
        if not several:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), patterns[0])
        return sorted(several)

    def _is_pattern(self, path: str) -> bool:
        return has_magic(path) and not self.lexists(path)

    def find(
        self,
        path: PathText,
        maxdepth: int | None = None,
        withdirs: bool = False,
        detail: bool = False,
        **kwargs: Any,
    ) -> Any:
        """All files below a path, or itself; nothing where nothing is.

        Without `maxdepth` that is one listing. Links are not followed.
        """
        if maxdepth is not None and maxdepth < 1:
            raise ValueError("maxdepth is at least 1")
        asked = self._strip_protocol(path)
        try:
            top = self.info(asked)
        except _ABSENT:
            top = None
        found = {}
        if top is not None and top["type"] == "directory":
            below = ((one["name"], one) for one in self._below(asked, maxdepth))
            found = {name: one for name, one in below if withdirs or one["type"] != "directory"}
        if top is not None and (withdirs or top["type"] != "directory"):
            found[asked] = top
        names = sorted(found)
        return {name: found[name] for name in names} if detail else names

    def _below(self, path: str, depth: int | None) -> Iterator[Info]:
        """What is below a directory, so many levels of it; what vanishes meanwhile is left out."""
        if depth is None:
            yield from self._listed(path, recursive=True)
            return
        level = [path]
        for _ in range(depth):
            below = []
            for directory in level:
                try:
                    found = list(self._listed(directory))
                except (*_ABSENT, PermissionError):
                    if directory == path:
                        raise
                    continue
                yield from found
                below += [one["name"] for one in found if one["type"] == "directory"]
            level = below

    def du(
        self,
        path: PathText,
        total: bool = True,
        maxdepth: int | None = None,
        withdirs: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Bytes of all files below a path, or with `total` False those of each."""
        found = self.find(path, maxdepth=maxdepth, withdirs=withdirs, detail=True)
        sizes = {name: one["size"] for name, one in found.items()}
        return sum(sizes.values()) if total else sizes

    def modified(self, path: PathText) -> datetime:
        """When a file was changed last, in UTC."""
        return datetime.fromtimestamp(self.info(path)["mtime"], UTC)

    def checksum(self, path: PathText) -> int:
        """The BLAKE3 of a file's content as a number. The server reads the file for it."""
        asked = self._strip_protocol(path)
        # Of a directory the server would hash all that is below it.
        found = None if self.isdir(asked) else next(self.client.hashes(asked), None)
        if found is None or found.path:
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), asked)
        return int.from_bytes(found.digest)


def in_full(hostname: str) -> str:
    """A host as it stands in URLs for fsspec: one that holds ``::`` is a chain there."""
    return IPv6Address(hostname).exploded if "::" in hostname else hostname


def _info(entry: RemoteEntry, path: str) -> Info:
    return {
        "name": path,
        "size": entry.size,
        "type": entry.type,
        "mtime": entry.mtime_ns / 10**9,
        "mtime_ns": entry.mtime_ns,
    }


def _name(info: Info) -> str:
    return str(info["name"])
