"""Somebody in front of every file-system call of the jail: who kills, who fails, who keeps a log."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

from fileexport.disk.calls import Calls
from tests.watched import NAMES

#: The status of a child that was killed at its point.
KILLED = 9
#: A call of an entry that a scan found, not of `Calls` itself: the disk is asked all the same.
ENTRY_STAT = "stat of an entry"
#: The errors that a disk, a quota or a table of files that is full or broken answers with.
ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EMFILE, errno.EROFS, errno.EINTR)

#: What changes the disk, or makes changes last; `Recording` knows each of them.
CHANGING = frozenset(
    """
        open symlink mkdir rmdir unlink rename rename_new write pwrite cut fchmod chmod_held utime utime_held
        fsync fdatasync syncfs
    """.split()
)
#: What does not.
READING = frozenset(
    "openat2 close fstat fstatvfs lstat readlink scan read pread lock mount_of mount_points path_of".split()
)


#: What may be done by half.
WRITES = ("write", "pwrite")


class Call(NamedTuple):
    """One call about to be made: `run` makes it."""

    name: str
    run: Callable[[], Any]
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]


class Fronted(Calls):
    """The plain calls; while `armed`, each is handed to `around`, which makes it or does not."""

    armed = False

    def syncfs(self, descriptor: int) -> None:
        # Other people's data are not waited for: who stands in front sees the call all the same.
        os.fstat(descriptor)

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if name not in NAMES or not self.armed:
            return found
        if name == "scan":
            return partial(self._scan, found)

        def call(*arguments: Any, **keywords: Any) -> Any:
            return self.around(Call(name, partial(found, *arguments, **keywords), arguments, keywords))

        return call

    def around(self, call: Call) -> Any:
        """Stand in front of one call."""
        return call.run()

    def _scan(
        self, scan: Callable[[int], Iterator[os.DirEntry[str]]], descriptor: int
    ) -> Iterator[os.DirEntry[str]]:
        # Read at once, so that there is a before and an after.
        for entry in self.around(Call("scan", lambda: list(scan(descriptor)), (descriptor,), {})):
            yield cast("os.DirEntry[str]", _SeenEntry(entry, self))


class _SeenEntry:
    """What `Calls.scan` found; being asked for its stat is a call like the others."""

    def __init__(self, entry: os.DirEntry[str], calls: Fronted) -> None:
        self.name = entry.name
        self._entry = entry
        self._calls = calls

    def stat(self, *, follow_symlinks: bool = True) -> os.stat_result:
        run = partial(self._entry.stat, follow_symlinks=follow_symlinks)
        status: os.stat_result = self._calls.around(Call(ENTRY_STAT, run, (), {}))
        return status


class Noting(Fronted):
    """Keeps the names of the calls, in their order."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def around(self, call: Call) -> Any:
        self.names.append(call.name)
        return call.run()


When = Literal["before", "after", "half"]


class Dying(Fronted):
    """Ends the process at the N-th call: before it, after it, or when half of a write is done."""

    def __init__(self, number: int, when: When) -> None:
        self._left = number
        self._when = when

    def around(self, call: Call) -> Any:
        self._left -= 1
        if self._left:
            return call.run()
        with suppress(OSError):
            if self._when == "after":
                call.run()
            elif self._when == "half":
                write_half(call)
        os._exit(KILLED)


def write_half(call: Call) -> int:
    """Make a write as a disk may that is nearly full: half of it, a byte at least."""
    descriptor, data, *offset = call.arguments
    half = data[: max(1, len(data) // 2)]
    return os.pwrite(descriptor, half, *offset) if offset else os.write(descriptor, half)


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong: an errno, or a short write without one; once, or with every call from then on."""

    error: int | None
    lasting: bool = False

    def __str__(self) -> str:
        name = "short write" if self.error is None else errno.errorcode[self.error]
        return f"{name}{' from then on' if self.lasting else ''}"


class Failing(Fronted):
    """Fails at the N-th call. `reached` is its name, `renamed` whether a file had got its name before.

    Closing a directory is not counted: it has nothing to write, and close(2) cannot fail there.
    `unflushed` counts what was unlinked since a flush was last tried.
    """

    def __init__(self, number: int, fault: Fault) -> None:
        self._left = number
        self.error = fault.error
        self.lasting = fault.lasting
        self.reached = ""
        self.renamed = False
        self.unflushed = 0

    @property
    def spared(self) -> bool:
        """Whether there was no N-th call."""
        return self._left > 0

    def around(self, call: Call) -> Any:
        kind = kind_of_descriptor(call)
        if call.name == "fsync" and kind == "directory":
            self.unflushed = 0
        if (call.name, kind) == ("close", "directory"):
            return call.run()
        self._left -= 1
        if self._left == 0 or (self.reached and self.lasting):
            return self._fail(call)
        result = call.run()
        self.renamed |= call.name in ("rename", "rename_new")
        self.unflushed += call.name == "unlink"
        return result

    def _fail(self, call: Call) -> Any:
        if self.error is None:
            if call.name not in WRITES:
                return call.run()
            self.reached = self.reached or call.name
            return write_half(call)
        self.reached = self.reached or call.name
        if call.name == "close":
            # As Linux does it: the descriptor is gone, whatever close(2) says.
            call.run()
        raise OSError(self.error, os.strerror(self.error))


def kind_of_descriptor(call: Call) -> str:
    """What a call that takes one descriptor is about: `file`, `directory`, or nothing."""
    if call.name not in ("close", "fsync"):
        return ""
    return "directory" if stat.S_ISDIR(os.fstat(call.arguments[0]).st_mode) else "file"


# -- the log


@dataclass(frozen=True, slots=True)
class Born:
    """A file or directory that no name leads to yet. Nodes have numbers of ours: inodes are used again.

    A link is a file that is born with its text.
    """

    node: int
    is_directory: bool
    mode: int
    content: bytes = b""


@dataclass(frozen=True, slots=True)
class Names:
    """Names of one directory that change in one step: each leads to a node from now on, or to nothing."""

    directory: int
    changes: tuple[tuple[str, int | None], ...]


@dataclass(frozen=True, slots=True)
class Data:
    """Bytes written into a file at an offset."""

    node: int
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Cut:
    """A file is no longer than this from now on."""

    node: int
    size: int


@dataclass(frozen=True, slots=True)
class Mode:
    """The permissions of a file."""

    node: int
    mode: int


@dataclass(frozen=True, slots=True)
class Flush:
    """fsync(2) of a file or a directory came back."""

    node: int


#: What a path leads to: content and permissions, or nothing.
Version = tuple[bytes, int] | None


@dataclass(frozen=True, slots=True)
class Promise:
    """What a path may hold from now on, beside what it did; only this, when it is `acknowledged`."""

    path: str
    version: Version
    acknowledged: bool


Step = Born | Names | Data | Cut | Mode | Flush | Promise


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A tree as nodes: node 0 is its root."""

    names: dict[int, dict[str, int]]
    files: dict[int, tuple[bytes, int]]


class Recording(Fronted):
    """Keeps a log of all that changes the disk, with enough to do it again; `start` is what was there.

    `meanwhile` holds what others do: the last of it is done in front of the next flush of a directory.
    With `leaving` unlink(2) is left out, as by a process that was killed before it.
    """

    def __init__(self, root: Path) -> None:
        self._nodes: dict[int, int] = {}
        self.start = Snapshot({}, {})
        self._take(root)
        self.log: list[Step] = []
        self.meanwhile: list[Callable[[], object]] = []
        self.leaving = False
        self._changes: list[dict[str, Version]] = []

    def _take(self, path: Path) -> int:
        status = path.lstat()
        node = self._nodes[status.st_ino] = len(self._nodes)
        if stat.S_ISDIR(status.st_mode):
            self.start.names[node] = {}
            for entry in sorted(path.iterdir()):
                self.start.names[node][entry.name] = self._take(entry)
        else:
            self.start.files[node] = (path.read_bytes(), stat.S_IMODE(status.st_mode))
        return node

    # -- promises

    def begin(self, changes: dict[str, Version]) -> None:
        """Something begins that shall make these paths hold these versions."""
        self._changes.append(changes)
        self.log += [Promise(path, version, False) for path, version in changes.items()]

    def acknowledge(self, *, ended: bool = True) -> None:
        """What began last is said to be done; or not yet ended, by a mutant that says so too early."""
        changes = self._changes.pop() if ended else self._changes[-1]
        self.log += [Promise(path, version, True) for path, version in changes.items()]

    # -- the calls

    def around(self, call: Call) -> Any:
        if call.name not in CHANGING:
            return call.run()
        note = getattr(self, f"_note_{call.name}")
        return note(call, *call.arguments, **call.keywords)

    def _node(self, descriptor: int) -> int:
        return self._nodes[os.fstat(descriptor).st_ino]

    def _named(self, name: str, directory: int) -> int:
        return self._nodes[os.stat(name, dir_fd=directory, follow_symlinks=False).st_ino]

    def _born(self, status: os.stat_result, content: bytes = b"") -> int:
        node = max(self._nodes.values()) + 1
        # Of two nodes with one inode the older is gone: the kernel gives none away that is in use.
        self._nodes[status.st_ino] = node
        self.log.append(Born(node, stat.S_ISDIR(status.st_mode), stat.S_IMODE(status.st_mode), content))
        return node

    def _note_open(self, call: Call, name: str, flags: int, *, dir_fd: int | None, mode: int = 0o666) -> Any:
        descriptor = call.run()
        if flags & os.O_CREAT:
            assert flags & os.O_EXCL and dir_fd is not None, "whether it makes a file must be plain"
            node = self._born(os.fstat(descriptor))
            self.log.append(Names(self._node(dir_fd), ((name, node),)))
        return descriptor

    def _note_symlink(self, call: Call, target: str, name: str, *, dir_fd: int) -> None:
        call.run()
        status = os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
        node = self._born(status, os.fsencode(target))
        self.log.append(Names(self._node(dir_fd), ((name, node),)))

    def _note_mkdir(self, call: Call, name: str, mode: int, *, dir_fd: int) -> None:
        call.run()
        node = self._born(os.stat(name, dir_fd=dir_fd))
        self.log.append(Names(self._node(dir_fd), ((name, node),)))

    def _note_rmdir(self, call: Call, name: str, *, dir_fd: int) -> None:
        call.run()
        self.log.append(Names(self._node(dir_fd), ((name, None),)))

    def _note_unlink(self, call: Call, name: str, *, dir_fd: int) -> None:
        if not self.leaving:
            self._note_rmdir(call, name, dir_fd=dir_fd)

    def _note_rename(self, call: Call, name: str, new_name: str, *, dir_fd: int, new_dir_fd: int) -> None:
        node = self._named(name, dir_fd)
        call.run()
        old, new = self._node(dir_fd), self._node(new_dir_fd)
        if old == new:
            self.log.append(Names(new, ((new_name, node), (name, None))))
            return
        # POSIX ties the two directories together for those who look, not for what a crash leaves.
        self.log.append(Names(new, ((new_name, node),)))
        self.log.append(Names(old, ((name, None),)))

    _note_rename_new = _note_rename

    def _note_write(self, call: Call, descriptor: int, data: bytes | memoryview) -> Any:
        offset = os.lseek(descriptor, 0, os.SEEK_CUR)
        written = call.run()
        self.log.append(Data(self._node(descriptor), offset, bytes(data[:written])))
        return written

    def _note_pwrite(self, call: Call, descriptor: int, data: bytes, offset: int) -> Any:
        written = call.run()
        self.log.append(Data(self._node(descriptor), offset, bytes(data[:written])))
        return written

    def _note_cut(self, call: Call, descriptor: int, size: int) -> None:
        call.run()
        self.log.append(Cut(self._node(descriptor), size))

    def _note_fchmod(self, call: Call, descriptor: int, mode: int) -> None:
        call.run()
        self.log.append(Mode(self._node(descriptor), mode))

    _note_chmod_held = _note_fchmod

    def _note_utime(self, call: Call, descriptor: int, mtime_ns: int) -> None:
        # No promise speaks of times.
        call.run()

    _note_utime_held = _note_utime

    def _note_fsync(self, call: Call, descriptor: int) -> None:
        if self.meanwhile and kind_of_descriptor(call) == "directory":
            self.meanwhile.pop()()
        call.run()
        self.log.append(Flush(self._node(descriptor)))

    def _note_fdatasync(self, call: Call, descriptor: int) -> None:
        call.run()
        self.log.append(Flush(self._node(descriptor)))

    def _note_syncfs(self, call: Call, descriptor: int) -> None:
        # In any order: each of these steps is a state of its own.
        call.run()
        self.log += [Flush(node) for node in sorted(set(self._nodes.values()))]
