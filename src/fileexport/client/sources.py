"""Opens local files that are sent: beneath the directory that they were found in, whatever becomes of it."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from typing import NamedTuple

from fileexport.client.answers import not_found
from fileexport.client.names import SOURCE_FLAGS
from fileexport.errors import SourceNotFound
from fileexport.paths import RESERVED

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
#: What opening a link says that is not followed, and opening one as a directory.
_LINKS = (errno.ELOOP, errno.EMLINK, errno.ENOTDIR)


class SourceTree(NamedTuple):
    """A directory here whose files are sent: as it is spelled, and which one it was when it was listed.

    It may have been named by a link. Below it no link is followed, also none that came after it was listed:
    who may write in it does not decide what else is sent.
    """

    top: str
    device: int
    inode: int

    @classmethod
    def of(cls, top: str) -> SourceTree:
        """The directory that has this path now. Raises `SourceNotFound`, `OSError`."""
        try:
            status = os.stat(top)
        except FileNotFoundError:
            raise not_found(SourceNotFound, top) from None
        return cls(top, status.st_dev, status.st_ino)

    def enter(self, path: str) -> int:
        """Open the directory that is `path` below it, the empty one for itself. Raises `OSError`."""
        descriptor = os.open(self.top, _DIRECTORY)
        try:
            status = os.fstat(descriptor)
            if (status.st_dev, status.st_ino) != (self.device, self.inode):
                raise not_found(SourceNotFound, self.top)
            for name in filter(None, path.split("/")):
                inner = os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=descriptor)
                os.close(descriptor)
                descriptor = inner
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def entries(self, path: str) -> Iterator[tuple[str, os.stat_result | OSError]]:
        """What lies in a directory below it, by name, links not followed; what goes meanwhile is not there.

        Our own staging, of a download that was broken off, is left out. Raises `OSError`.
        """
        descriptor = self.enter(path)
        try:
            with os.scandir(descriptor) as found:
                for entry in sorted(found, key=lambda entry: entry.name):
                    if entry.name == RESERVED:
                        continue
                    try:
                        yield entry.name, entry.stat(follow_symlinks=False)
                    except FileNotFoundError:
                        continue
                    except OSError as error:
                        yield entry.name, error
        finally:
            os.close(descriptor)


class Opener:
    """Opens files that are sent, one after the other; it holds the directory of the last one."""

    def __init__(self) -> None:
        self._tree: SourceTree | None = None
        self._directory = ""
        self._descriptor = -1

    def open(self, place: str, tree: SourceTree | None) -> int:
        """A descriptor of the file that has the path `place`, in a tree or wherever links lead.

        Raises `SourceNotFound`, in a tree also where a link stands in the way, else `OSError`.
        """
        try:
            if tree is None:
                return os.open(place, SOURCE_FLAGS)
            directory, _, name = place.rpartition("/")
            if tree is not self._tree or directory != self._directory:
                self._enter(tree, directory)
            return os.open(name, SOURCE_FLAGS | os.O_NOFOLLOW, dir_fd=self._descriptor)
        except FileNotFoundError:
            raise not_found(SourceNotFound, place) from None
        except OSError as error:
            if tree is not None and error.errno in _LINKS:
                raise SourceNotFound(errno.ENOENT, "something else has taken its place", place) from None
            error.filename = place
            raise

    def _enter(self, tree: SourceTree, directory: str) -> None:
        self.close()
        self._descriptor = tree.enter(directory[len(tree.top) :])
        self._tree, self._directory = tree, directory

    def close(self) -> None:
        """Let go of the directory; a second time does nothing."""
        descriptor, self._descriptor, self._tree = self._descriptor, -1, None
        if descriptor >= 0:
            os.close(descriptor)

    def __enter__(self) -> Opener:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
