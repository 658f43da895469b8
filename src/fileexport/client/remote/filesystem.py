"""`FileExportFileSystem`: what a server exports as a file system of fsspec, for pandas, dask, UPath …"""

from __future__ import annotations

import errno
import io
import os
import time
import weakref
from collections.abc import Callable
from glob import has_magic
from typing import Any, TypeVar

from fsspec.callbacks import DEFAULT_CALLBACK
from fsspec.compression import compr
from fsspec.core import get_compression
from fsspec.implementations.local import make_path_posix
from fsspec.utils import isfilelike, other_paths

from fileexport.client.answers import name_file
from fileexport.client.blocking import Client
from fileexport.client.chunks import Progress
from fileexport.client.environment import PORT, settings_of_environment
from fileexport.client.matching import PathText
from fileexport.client.remote.calls import make_parents, remove_directory, remove_file, write_small
from fileexport.client.remote.files import reader
from fileexport.client.remote.filesystem_files import CachedFile, PackedFile, ReadFile, Together, WrittenFile
from fileexport.client.remote.filesystem_looking import Looking
from fileexport.client.remote.writing import TextRemoteWriter
from fileexport.errors import ChangedWhileRead, SourceNotFound
from fileexport.paths import RelPath
from fileexport.sync.manifest import Entry
from fileexport.wire.messages import MAX_INLINE, RemoveStep, SetStep

T = TypeVar("T")

#: Options that fsspec takes, or has taken, for every file system.
_FSSPEC = frozenset(
    "add_aliases add_docs asynchronous listings_expiry_time loop max_paths skip_instance_cache"
    " use_listings_cache".split()
)


class FileExportFileSystem(Looking):
    """What a server exports, as fsspec's protocol ``fileexport``: ``fileexport://host:port/path``.

    The options are the parameters of `Client`; what is not given comes from the environment, as for
    `fileexport.open`, at the moment when the file system is made. fsspec keeps file systems: one for the
    same options and thread. Nothing that a server said is kept, each call asks it. With `auto_mkdir`, as in
    fsspec's local file system, the directories above what is written are made.

    Paths are seen from the root; in URLs they are percent-encoded. What is said of one is a dict of ``name``,
    ``size``, ``type`` (``file``, ``directory``, ``link``, ``other``), ``mtime`` in seconds and ``mtime_ns``,
    both since 1970. A listing says that a link is one; `info` says what it leads to, with ``islink``.

    Raises as `Client` does. Where fsspec takes any error for absence, here a lost connection or a wrong token
    is an exception.
    """

    transaction_type = Together

    def __init__(
        self,
        hostname: str | None = None,
        port: int | None = None,
        *,
        token: str | None = None,
        public_key: str | None = None,
        ca_file: PathText | None = None,
        tls: bool | None = None,
        timeout: float | None = None,
        compression: bool | None = None,
        client_certificate: PathText | None = None,
        auto_mkdir: bool = False,
        **options: Any,
    ) -> None:
        """`options` are fsspec's own, others a TypeError. ValueError: no server or no token is named."""
        if unknown := sorted(options.keys() - _FSSPEC):
            raise TypeError(f"{type(self).__name__} has no option {unknown[0]!r}")
        super().__init__(**options)
        settings = settings_of_environment(
            os.environ,
            hostname,
            # The port of the environment is that of the host there.
            PORT if hostname is not None and port is None else port,
            token=token,
            public_key=public_key,
            ca_file=ca_file,
            tls=tls,
            timeout=timeout,
            compression=compression,
            client_certificate=client_certificate,
        )
        self.auto_mkdir = auto_mkdir
        self.client = Client(**settings)
        self.server = settings["hostname"], settings["port"]
        weakref.finalize(self, self.client.close)

    # Directories, and what goes.

    def mkdir(self, path: PathText, create_parents: bool = True, **kwargs: Any) -> None:
        """Make a directory. Raises `FileExistsError`."""
        asked = self._strip_protocol(path)
        if create_parents:
            make_parents(self.client, asked)
        _, _, name = asked.rpartition("/")
        if not name:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), asked)
        self.client.make_directory(name, self._parent(asked))

    def makedirs(self, path: PathText, exist_ok: bool = False) -> None:
        """Make a directory and those above it. Raises `FileExistsError`, for a file always."""
        self.client.path(self._strip_protocol(path)).mkdir(parents=True, exist_ok=exist_ok)

    def _with_parents(self, path: str, action: Callable[[], T], always: bool = False) -> T:
        """What `action` returns; where a directory above `path` is missing, once more when it is there."""
        try:
            return action()
        except SourceNotFound:
            raise
        except FileNotFoundError:
            if not (always or self.auto_mkdir):
                raise
        make_parents(self.client, path)
        return action()

    def rmdir(self, path: PathText) -> None:
        """Remove an empty directory. Raises `NotADirectoryError`, and `OSError` (ENOTEMPTY)."""
        remove_directory(self.client, self._strip_protocol(path))

    def rm_file(self, path: PathText) -> None:
        """Remove a file or link. Raises `IsADirectoryError`, and as `RemotePath.unlink`."""
        remove_file(self.client, self._strip_protocol(path))

    def rm(self, path: Any, recursive: bool = False, maxdepth: int | None = None) -> None:
        """Remove files and empty directories, with `recursive` all others too; globs are expanded.

        `IsADirectoryError` for a directory that is not empty. After an error some may be gone.
        """
        whole = recursive and maxdepth is None
        found = self.expand_path(path, recursive=recursive and not whole, maxdepth=maxdepth)
        # What lies in a directory goes before it.
        found.reverse()
        if whole:
            for one in found:
                self.client.remove(one, recursive=True)
            return
        steps = [RemoveStep(RelPath.parse(one)) for one in found]
        for one, error in zip(found, self.client.change(steps), strict=True):
            _raise(error, one)

    # Copies, and other names.

    def cp_file(self, path1: PathText, path2: PathText, **kwargs: Any) -> None:
        """Have the server copy a file, its time and permissions too; of a directory, make one."""
        source, target = self._strip_protocol(path1), self._strip_protocol(path2)
        try:
            try:
                self._copy(source, target)
            except ChangedWhileRead:
                self._copy(source, target)
        except IsADirectoryError:
            if not self.isdir(source):
                raise
            self.makedirs(target, exist_ok=True)

    def _copy(self, source: str, target: str) -> None:
        with reader(self.client, source, in_parts=True) as file:
            # Where they are not said, those that a new file has most often.
            mode = 0o644 if file.permissions is None else file.permissions
            entry = Entry("file", file.size, file.mtime_ns, mode)
        [found] = self.client.hashes(source)
        self._with_parents(target, lambda: self.client.copy(source, target, entry, found.digest))

    def copy(
        self,
        path1: Any,
        path2: Any,
        recursive: bool = False,
        maxdepth: int | None = None,
        on_error: str | None = None,
        **kwargs: Any,
    ) -> None:
        """As fsspec's; a name that is there as it is written is no pattern."""
        if self._is_odd(path1) and isinstance(path2, str):
            target = self._strip_protocol(path2)
            into = path2.endswith("/") or self.isdir(target)
            path1, path2 = self._pairs(path1, target, into, recursive, maxdepth)
        super().copy(path1, path2, recursive=recursive, maxdepth=maxdepth, on_error=on_error, **kwargs)

    def _is_odd(self, path: Any) -> bool:
        """Whether fsspec would take this path for a pattern, which it is not."""
        return isinstance(path, str) and has_magic(path) and self.lexists(path)

    def _pairs(
        self, source: str, target: str, into: bool, recursive: bool, maxdepth: int | None
    ) -> tuple[list[str], list[str]]:
        """What is copied, and to where, by fsspec's rules; `into`: the target is a directory."""
        found = self.expand_path(source, recursive=recursive, maxdepth=maxdepth)
        if not recursive or maxdepth is not None:
            found = [one for one in found if not self.isdir(one)]
        into = into and not source.endswith("/")
        return found, other_paths(found, target, exists=into) if found else []

    def mv(
        self, path1: Any, path2: Any, recursive: bool = False, maxdepth: int | None = None, **kwargs: Any
    ) -> None:
        """Give files or directories other names, each in one step; an existing file is replaced.

        Where `path2` is a directory, or ends with a slash, it goes into that, and several do. No name is a
        pattern: `FileNotFoundError`. What is in ``path1/`` is copied, and then removed.
        """
        if not isinstance(path1, list) and os.fspath(path1).endswith("/"):
            self._refuse_pattern(self._strip_protocol(path1))
            super().mv(path1, path2, recursive=recursive, maxdepth=maxdepth, **kwargs)
            return
        sources = path1 if isinstance(path1, list) else [path1]
        if isinstance(path2, list):
            targets = list(map(os.fspath, path2))
        else:
            target = os.fspath(path2)
            targets = [f"{target.rstrip('/')}/" if isinstance(path1, list) else target] * len(sources)
        for one, other in zip(sources, targets, strict=True):
            self._move(self._strip_protocol(one), other)

    def _refuse_pattern(self, path: str) -> None:
        if has_magic(path):
            self.client.stat(path)

    def _move(self, source: str, wish: str) -> None:
        self._refuse_pattern(source)
        target = self._strip_protocol(wish)
        if wish.endswith("/") or (target != source and self.isdir(target)):
            target = f"{target.rstrip('/')}/{source.rpartition('/')[2]}"
        if target != source:
            self._with_parents(target, lambda: self.client.move(source, target, replace=True))

    # Contents.

    def start_transaction(self) -> Any:
        """Begin one without a `with` block. Raises RuntimeError within one."""
        if self._intrans:
            raise RuntimeError("a transaction of this file system is under way: end it first")
        return super().start_transaction()

    def _open(
        self,
        path: str,
        mode: str = "rb",
        block_size: int | None = None,
        autocommit: bool = True,
        cache_options: Any = None,
        cache_type: str | None = None,
        **kwargs: Any,
    ) -> Any:
        """A file of bytes: ``rb``, ``wb``, ``xb``. With `cache_type` it is read through a cache of fsspec."""
        if mode == "rb" and cache_type is not None:
            return CachedFile(self, path, block_size, cache_type, cache_options=cache_options, **kwargs)
        if mode == "rb":
            return ReadFile(self, path, block_size)
        if mode not in ("wb", "xb"):
            raise io.UnsupportedOperation(f"a remote file is read, or written anew: no mode {mode!r}")
        return self._with_parents(
            path, lambda: WrittenFile(self, path, block_size, exclusive=mode == "xb", commits=autocommit)
        )

    def open(
        self,
        path: PathText,
        mode: str = "rb",
        block_size: int | None = None,
        cache_options: Any = None,
        compression: str | None = None,
        **kwargs: Any,
    ) -> Any:
        """Open a file as fsspec does. What a ``with`` block wrote is discarded when it raises.

        In a transaction what is closed is committed at its end, and what is still open then discarded.
        """
        text = {name: kwargs.pop(name) for name in ("encoding", "errors", "newline") if name in kwargs}
        bare = mode.replace("t", "").replace("b", "") + "b"
        file = super().open(path, bare, block_size=block_size, cache_options=cache_options, **kwargs)
        if compression is not None and (name := get_compression(str(path), compression)) is not None:
            packer = compr[name](file, mode=bare[0])
            file = packer if bare == "rb" else PackedFile(packer, file)
        if "b" in mode:
            return file
        return io.TextIOWrapper(file, **text) if bare == "rb" else TextRemoteWriter(file, **text)

    def cat_file(
        self, path: PathText, start: int | None = None, end: int | None = None, **kwargs: Any
    ) -> bytes:
        """The content of a file, or the part of it that a slice names."""
        is_whole = not start and end is None
        with reader(self.client, self._strip_protocol(path), in_parts=not is_whole) as file:
            if is_whole:
                return file.readall()
            first, last, _ = slice(start, end).indices(file.size)
            return file.pread(max(last - first, 0), first)

    def cat(self, path: Any, recursive: bool = False, on_error: str = "raise", **kwargs: Any) -> Any:
        """The content of a file; of several, of a glob, or with `recursive` of a directory: path → content.

        Small files come many at a time. `on_error`: ``raise``, ``omit``, or ``return`` the exception.
        """
        paths = self.expand_path(path, recursive=recursive)
        if kwargs or (not isinstance(path, list) and paths == [self._strip_protocol(path)]):
            return super().cat(path, recursive=recursive, on_error=on_error, **kwargs)
        found: dict[str, Any] = {}
        small = dict(self.client.read_files(paths))
        for one in paths:
            content = small.pop(one)
            if isinstance(content, IsADirectoryError) and recursive:
                continue
            try:
                if isinstance(content, ValueError):
                    content = self.cat_file(one)
                elif isinstance(content, Exception):
                    _raise(content, one)
            except Exception as error:
                if on_error == "raise":
                    raise
                content = error
            if on_error != "omit" or not isinstance(content, Exception):
                found[one] = content
        return found

    def pipe_file(self, path: PathText, value: bytes, mode: str = "overwrite", **kwargs: Any) -> None:
        """Make a file of bytes. With `mode` ``create`` raises `FileExistsError` for what is there."""
        asked = self._strip_protocol(path)
        at_once = mode != "create" and not self._intrans and len(value) <= MAX_INLINE
        if at_once and self._with_parents(asked, lambda: self._write_small(asked, value)):
            return
        with self.open(asked, "xb" if mode == "create" else "wb", **kwargs) as file:
            file.write(value)

    def _write_small(self, path: str, value: bytes) -> bool:
        return write_small(self.client._pool, RelPath.parse(path), value, lambda: self.client._wait(None))

    def touch(self, path: PathText, truncate: bool = True, **kwargs: Any) -> None:
        """Make a file empty, or without `truncate` give it the time of now; one that is missing is made."""
        asked = self._strip_protocol(path)
        if truncate or not self.lexists(asked):
            self.pipe_file(asked, b"", **kwargs)
            return
        [error] = self.client.change([SetStep(RelPath.parse(asked), time.time_ns())])
        _raise(error, asked)

    # Files as they are here.

    def get(
        self,
        rpath: Any,
        lpath: Any,
        recursive: bool = False,
        callback: Any = DEFAULT_CALLBACK,
        maxdepth: int | None = None,
        **kwargs: Any,
    ) -> None:
        """As fsspec's; a name that is there as it is written is no pattern."""
        if self._is_odd(rpath) and isinstance(lpath, str):
            target = make_path_posix(lpath)
            into = lpath.endswith("/") or os.path.isdir(target)
            rpath, lpath = self._pairs(rpath, target, into, recursive, maxdepth)
        super().get(rpath, lpath, recursive=recursive, callback=callback, maxdepth=maxdepth, **kwargs)

    def get_file(
        self,
        rpath: PathText,
        lpath: Any,
        callback: Any = DEFAULT_CALLBACK,
        outfile: Any = None,
        **kwargs: Any,
    ) -> None:
        """Fetch a file to a path here, or into an open file; of a directory, make one here.

        A path holds what it held before until the file is complete.
        """
        asked = self._strip_protocol(rpath)
        target = lpath if outfile is None and isfilelike(lpath) else outfile
        if target is not None:
            with self.open(asked) as file:
                callback.set_size(file.size)
                while piece := file.read(file.blocksize):
                    target.write(piece)
                    callback.relative_update(len(piece))
            return
        directory, name = os.path.split(os.path.abspath(lpath))
        os.makedirs(directory, exist_ok=True)
        try:
            _watched(
                callback,
                lambda progress: self.client.download_file(
                    asked, directory, name, replace=True, progress=progress
                ),
            )
        except IsADirectoryError:
            if not self.isdir(asked):
                raise
            os.makedirs(lpath, exist_ok=True)

    def put_file(
        self,
        lpath: PathText,
        rpath: PathText,
        callback: Any = DEFAULT_CALLBACK,
        mode: str = "overwrite",
        **kwargs: Any,
    ) -> None:
        """Send a file of this machine; the directories above it are made. Of a directory, make one there.

        With `mode` ``create`` raises `FileExistsError` for what is there.
        """
        target = self._strip_protocol(rpath)
        if os.path.isdir(lpath):
            self.makedirs(target, exist_ok=True)
            return

        directory, _, name = target.rpartition("/")

        def send(progress: Progress) -> None:
            self.client.upload_file(
                lpath, directory or "/", name, replace=mode != "create", progress=progress
            )

        self._with_parents(target, lambda: _watched(callback, send), always=True)


def _watched(callback: Any, transfer: Callable[[Progress], object]) -> None:
    """Carry out a transfer; a callback of fsspec hears how far it is."""

    def progress(done: int, size: int) -> None:
        callback.set_size(size)
        callback.absolute_update(done)

    transfer(progress)
    if callback.size is None:
        # Of an empty file there is no progress.
        callback.set_size(0)


def _raise(error: Exception | None, path: str) -> None:
    """Raise what became of one of many."""
    if isinstance(error, OSError):
        name_file(error, path)
    if error is not None:
        raise error
