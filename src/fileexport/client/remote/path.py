"""`RemotePath`: a path of a server with the interface of `pathlib.Path`, by the verbs of a `Client`."""

from __future__ import annotations

import errno
import io
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any, BinaryIO, overload

from fileexport.client.listings import Kept
from fileexport.client.names import Kind, RemoteEntry, remote_path
from fileexport.client.remote.names import RemoteNames, check_absolute
from fileexport.errors import ConflictError, FileNameError
from fileexport.wire import messages as m
from fileexport.wire.bounds import clamped

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Self

    from fileexport.client.connection import Wait
    from fileexport.client.remote.opening import BinaryMode, TextMode

_FORMATS: dict[Kind, int] = {
    "file": stat.S_IFREG,
    "directory": stat.S_IFDIR,
    "link": stat.S_IFLNK,
    "other": 0,
}
#: Errors that mean: nothing is there.
_NOTHING = (FileNotFoundError, NotADirectoryError, FileNameError)
#: Errors that say nothing of a path, but that the server cannot be asked.
_UNASKED = (ConnectionError, TimeoutError)


class RemotePath(RemoteNames):
    """A path of a server, as `pathlib.Path` is one of this machine: the same names, results and exceptions.

    It is absolute, or a URL ``fileexport://host:port/path`` (percent-encoded). Without a client the server is
    the one that the URL or the environment names; a client for it is made at first use, shared by all paths
    that come from this one, and closed when none of them is left. Raises ValueError for a relative path, and
    for a URL beside a client of another server.

    Paths are equal where path and server are; the server is not asked for that. It is no `os.PathLike`, so
    that nobody takes it for a path of this machine: `str` gives the remote path, `as_uri` the URL. One that
    has a client of its caller's cannot be pickled; another one finds its server anew where it is unpickled.

    Calls that ask the server raise what `Client` says of all its calls. Where the path is to blame, that is
    pathlib's exception with its `filename`; a name that cannot be one, such as ``..``, is a `FileNameError`.
    """

    __slots__ = ()

    # What is there.

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        """What is there: `st_mode` has the kind and no permissions, `st_size`, `st_mtime`; all others are 0.

        Of what a link leads to where `follow_symlinks`; that is asked for by opening it.
        """
        with self._named():
            found = self._entry()
            if found.type == "link" and follow_symlinks:
                found = self._behind()
        return _status(found)

    def lstat(self) -> os.stat_result:
        """As `stat`, of a link itself."""
        return self.stat(follow_symlinks=False)

    def exists(self, *, follow_symlinks: bool = True) -> bool:
        """Whether something is there; a link that leads nowhere is nothing, unless it is not followed."""
        return self._kind(follow_symlinks) is not None

    def is_file(self, *, follow_symlinks: bool = True) -> bool:
        """Whether it is a regular file."""
        return self._kind(follow_symlinks) == "file"

    def is_dir(self, *, follow_symlinks: bool = True) -> bool:
        """Whether it is a directory."""
        return self._kind(follow_symlinks) == "directory"

    def is_symlink(self) -> bool:
        """Whether it is a link."""
        return self._kind(False) == "link"

    def _entry(self) -> RemoteEntry:
        return self.client.stat(str(self))

    def _behind(self) -> RemoteEntry:
        from fileexport.client.remote.calls import behind

        return behind(self.client._pool, remote_path(str(self)), self._wait)

    def _wait(self) -> Wait:
        return self.client._wait(None)

    def _kind(self, follow: bool) -> Kind | None:
        with self._named():
            try:
                found = self._entry()
                return self._behind().type if found.type == "link" and follow else found.type
            except _NOTHING:
                return None

    # Directories.

    def iterdir(self) -> Iterator[Self]:
        """The entries of a directory, all listed when this returns."""
        return iter([self._child(entry.path) for entry in self._listed()])

    def glob(self, pattern: str, *, case_sensitive: bool | None = None) -> Iterator[Self]:
        """What a pattern names below this directory, links that lead nowhere too, each once.

        ``**`` stands for any number of directories, and costs one request for all that is below them; it
        enters no links. At the end of a pattern it means files too. Otherwise a directory is listed when it
        is its turn. What may not be read below this one is left out, as in pathlib. Raises ValueError and
        NotImplementedError as pathlib does.
        """
        return self._glob(pattern, False, case_sensitive)

    def rglob(self, pattern: str, *, case_sensitive: bool | None = None) -> Iterator[Self]:
        """As `glob` with ``**/`` in front of the pattern."""
        return self._glob(pattern, True, case_sensitive)

    def _glob(self, pattern: str, deep: bool, case_sensitive: bool | None) -> Iterator[Self]:
        from fileexport.client.remote.patterns import Pattern

        wanted = Pattern(pattern, deep=deep, case_sensitive=case_sensitive is not False)
        return (self._child(path) if path else self for path in wanted.select(_Tree(self)))

    def walk(
        self,
        top_down: bool = True,
        on_error: Callable[[OSError], object] | None = None,
        follow_symlinks: bool = False,
    ) -> Iterator[tuple[Self, list[str], list[str]]]:
        """Yield each directory with the names of its directories and of its other entries, as pathlib does.

        From the top down, a directory is listed when its turn comes, and not if its name was taken out of
        the list. What cannot be listed is left out, after `on_error` if there is one; where the server cannot
        be asked, that is raised.
        """
        waiting: list[Self | tuple[Self, list[str], list[str]]] = [self]
        while waiting:
            place = waiting.pop()
            if isinstance(place, tuple):
                yield place
                continue
            try:
                found = place._listed()
            except _UNASKED:
                raise
            except OSError as error:
                if on_error is not None:
                    on_error(error)
                continue
            names: tuple[list[str], list[str]] = [], []
            for entry in found:
                leads = follow_symlinks and entry.type == "link" and place._child(entry.path).is_dir()
                names[not (leads or entry.type == "directory")].append(entry.path)
            if top_down:
                yield place, *names
            else:
                waiting.append((place, *names))
            waiting += [place._child(name) for name in reversed(names[0])]

    def _listed(self, deep: bool = False) -> list[RemoteEntry]:
        """All of a listing, so that nobody waits for who reads it."""
        with self._named():
            return list(Kept().all(self.client.entries(str(self), deep)))

    def _child(self, path: str) -> Self:
        return self._with(self._pure / path)

    # Contents.

    @overload
    def open(
        self,
        mode: TextMode = "r",
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> io.TextIOWrapper: ...
    @overload
    def open(self, mode: BinaryMode, buffering: int = -1) -> BinaryIO: ...
    @overload
    def open(
        self,
        mode: str,
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> IO[Any]: ...
    def open(
        self,
        mode: str = "r",
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> IO[Any]:
        """Open the file as `fileexport.open` does: to be read, or to be written and committed by `close`."""
        from fileexport.client.remote.files import open as open_remote

        if "b" not in mode:
            encoding = io.text_encoding(encoding)
        with self._named():
            return open_remote(
                str(self),
                mode,
                client=self.client,
                buffering=buffering,
                encoding=encoding,
                errors=errors,
                newline=newline,
            )

    def read_bytes(self) -> bytes:
        """The whole content, of one version of the file."""
        with self._named(), self.open("rb") as file:
            return file.read()

    def read_text(
        self, encoding: str | None = None, errors: str | None = None, newline: str | None = None
    ) -> str:
        """The whole content as text."""
        encoding = io.text_encoding(encoding)
        with io.TextIOWrapper(io.BytesIO(self.read_bytes()), encoding, errors, newline) as text:
            return text.read()

    def write_bytes(self, data: bytes | bytearray | memoryview) -> int:
        """Put a file with this content in place of what is there, in one step; returns how many bytes it has.

        Up to 64 KiB travel in one request. A link is not followed: the file takes its place.
        """
        from fileexport.client.remote.calls import write_small

        content = memoryview(data).cast("B")
        with self._named():
            if not write_small(self.client._pool, remote_path(str(self)), content, self._wait):
                with self.open("wb") as file:
                    file.write(content)
        return len(content)

    def write_text(
        self, data: str, encoding: str | None = None, errors: str | None = None, newline: str | None = None
    ) -> int:
        """As `write_bytes`, of text; returns how many characters it has."""
        if not isinstance(data, str):
            raise TypeError(f"data must be str, not {type(data).__name__}")
        buffer = io.BytesIO()
        with io.TextIOWrapper(buffer, io.text_encoding(encoding), errors, newline) as text:
            text.write(data)
            text.flush()
            content = buffer.getvalue()
        self.write_bytes(content)
        return len(data)

    # Changes.

    def touch(self, mode: int = 0o666, exist_ok: bool = True) -> None:
        """Make an empty file; one that is there gets this machine's time. Raises `FileExistsError`.

        A `mode` other than the usual one is set as it is. A link cannot be touched: `OSError`, EINVAL.
        """
        with self._named():
            if exist_ok:
                try:
                    self._change(m.SetStep(remote_path(str(self)), mtime=clamped(time.time_ns())))
                    return
                except FileNotFoundError:
                    pass
            if self._pure == self._pure.parent:
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
            self.client.create_file(self.name, str(self.parent), exist_ok=exist_ok)
            if mode != 0o666:
                self.chmod(mode)

    def chmod(self, mode: int) -> None:
        """Set the permissions of a file or a directory; not of a link: `OSError`, EINVAL."""
        with self._named():
            self._change(m.SetStep(remote_path(str(self)), mode=mode & 0o777))

    def mkdir(self, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        """Make a directory, with `parents` those above it too. Raises `FileExistsError`, `FileNotFoundError`.

        A `mode` other than the usual one is set as it is.
        """
        from fileexport.client.remote.calls import make_parents

        with self._named():
            try:
                self._make(mode)
            except FileNotFoundError:
                if not parents:
                    raise
                make_parents(self.client, str(self))
                self._make(mode, exist_ok)
            except FileExistsError:
                if not exist_ok or not self.is_dir():
                    raise

    def _make(self, mode: int, exist_ok: bool = False) -> None:
        path = remote_path(str(self))
        if not path:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        try:
            self._change(m.MakeStep(path, None if mode == 0o777 else mode & 0o777))
        except FileExistsError:
            if not exist_ok or not self.is_dir():
                raise

    def symlink_to(self, target: str | os.PathLike[str], target_is_directory: bool = False) -> None:
        """Make a link with this text; one that leads outside is an `OSError`, EINVAL.

        An empty text is a `FileNotFoundError`.
        """
        with self._named():
            if not os.fspath(target):
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
            self._change(m.LinkStep(remote_path(str(self)), os.fsencode(target)))

    def rmdir(self) -> None:
        """Remove an empty directory. Raises `OSError` with ENOTEMPTY, `NotADirectoryError`."""
        from fileexport.client.remote.calls import remove_directory

        with self._named():
            remove_directory(self.client, str(self))

    def unlink(self, missing_ok: bool = False) -> None:
        """Remove a file, or a link itself. Raises `IsADirectoryError`, `FileNotFoundError`.

        A file that somebody writes to all the time can be an `OSError`, EBUSY: it is still there.
        """
        from fileexport.client.remote.calls import remove_file

        try:
            with self._named():
                remove_file(self.client, str(self))
        except FileNotFoundError:
            if not missing_ok:
                raise

    def rename(self, target: str | RemoteNames) -> Self:
        """Give it another path in one step, and return that. Raises `FileExistsError` where that is taken.

        The target is absolute, and on this server; what takes the place of a file is `replace`. A directory
        that would lie in itself, or a link that would lead outside, is an `OSError`, EINVAL.
        """
        return self._move(target, False)

    def replace(self, target: str | RemoteNames) -> Self:
        """As `rename`, in place of a file or a link that is there."""
        return self._move(target, True)

    def _move(self, target: str | RemoteNames, replace: bool) -> Self:
        pure = self._of_here(target)
        check_absolute(str(pure))
        new = self._with(pure)
        with self._named(str(new)):
            if new == self:
                self._entry()
                return new
            self._change(m.MoveStep(remote_path(str(self)), remote_path(str(new)), replace))
        return new

    # Inside.

    def _change(self, step: m.AnyStep) -> None:
        from fileexport.client.remote.calls import change

        change(self.client, step)

    @contextmanager
    def _named(self, target: str | None = None) -> Iterator[None]:
        """What the path is to blame for becomes pathlib's exception, and names it."""
        names = (str(self),) if target is None else (str(self), None, target)
        try:
            yield
        except _UNASKED:
            raise
        except ConflictError as error:
            raise OSError(errno.EINVAL, str(error), *names) from None
        except OSError as error:
            if error.errno is None:
                raise
            raise OSError(error.errno, error.strerror, *names) from None


class _Tree:
    """How a pattern sees what is below a path."""

    def __init__(self, top: RemotePath) -> None:
        self._top = top

    def below(self, path: str, deep: bool) -> Iterable[RemoteEntry]:
        """What is in a directory or below it; nothing where it is none, or, below the top, cannot be read."""
        try:
            return self._top._child(path)._listed(deep)
        except _NOTHING:
            return ()
        except PermissionError:
            if not path:
                raise
            return ()

    def kind(self, path: str) -> Kind | None:
        """What is there, a link being a link."""
        return self._top._child(path)._kind(False)

    def is_directory(self, path: str) -> bool:
        """Whether it is a directory, or a link that leads to one."""
        return self._top._child(path).is_dir()


def _status(found: RemoteEntry) -> os.stat_result:
    seconds = found.mtime_ns // 10**9
    times = {
        **dict.fromkeys(("st_atime", "st_ctime", "st_atime_ns", "st_ctime_ns"), 0),
        **dict.fromkeys(("st_blocks", "st_blksize", "st_rdev"), 0),
        "st_mtime": found.mtime_ns / 10**9,
        "st_mtime_ns": found.mtime_ns,
    }
    return os.stat_result((_FORMATS[found.type], 0, 0, 0, 0, 0, found.size, 0, seconds, 0), times)
