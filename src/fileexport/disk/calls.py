"""Every file-system call of the jail, behind one object, so that a proof can stand in front of each.

The jail calls nothing else. A subclass that counts, fails or kills at the N-th call sees all that the disk
sees (SECURITY: kill points, error injection, the power-loss model).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import re
import stat
import sys
from collections.abc import Callable, Iterator
from functools import cache

#: openat2(2); the number is the same on every architecture (it is newer than the split tables).
_SYS_OPENAT2 = 437
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
#: renameat2(2): refuse to replace an existing target.
_RENAME_NOREPLACE = 1
_MOUNT = re.compile(rb"^mnt_id:\s*(\d+)$", re.MULTILINE)
_OCTAL = re.compile(rb"\\([0-3][0-7]{2})")


class _OpenHow(ctypes.Structure):
    """struct open_how of linux/openat2.h."""

    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


@cache
def _how(flags: int, resolve: int) -> tuple[object, int]:
    """The last two arguments of openat2(2); the kernel only reads them, and we use a handful."""
    how = _OpenHow(flags | os.O_CLOEXEC, 0, resolve)
    return ctypes.byref(how), ctypes.sizeof(how)


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


@cache
def _function(name: str) -> Callable[..., int] | None:
    """A function of the C library; None where this system's has none of that name."""
    found: Callable[..., int] | None = getattr(_libc(), name, None)
    return found


def _check(result: int, name: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), name)
    return result


class Calls:
    """The plain calls of the operating system. All raise `OSError`; descriptors are close-on-exec."""

    def open(self, name: str, flags: int, *, dir_fd: int | None, mode: int = 0o666) -> int:
        return os.open(name, flags | os.O_CLOEXEC, mode, dir_fd=dir_fd)

    def openat2(self, dir_fd: int, path: str, flags: int, resolve: int) -> int:
        """openat2(2) for an existing path; ENOSYS where the kernel has none."""
        if sys.platform != "linux":
            # Elsewhere the number may be another call's.
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
        result = _libc().syscall(_SYS_OPENAT2, dir_fd, os.fsencode(path), *_how(flags, resolve))
        return _check(result, path)

    def close(self, descriptor: int) -> None:
        os.close(descriptor)

    def fstat(self, descriptor: int) -> os.stat_result:
        return os.fstat(descriptor)

    def fstatvfs(self, descriptor: int) -> os.statvfs_result:
        return os.fstatvfs(descriptor)

    def lstat(self, name: str, *, dir_fd: int) -> os.stat_result:
        return os.stat(name, dir_fd=dir_fd, follow_symlinks=False)

    def readlink(self, name: str, *, dir_fd: int) -> str:
        return os.readlink(name, dir_fd=dir_fd)

    def scan(self, descriptor: int) -> Iterator[os.DirEntry[str]]:
        """Entries of an open directory; its names as `str` with surrogate escapes."""
        with os.scandir(descriptor) as entries:
            yield from entries

    def symlink(self, target: str, name: str, *, dir_fd: int) -> None:
        os.symlink(target, name, dir_fd=dir_fd)

    def mkdir(self, name: str, mode: int, *, dir_fd: int) -> None:
        os.mkdir(name, mode, dir_fd=dir_fd)

    def rmdir(self, name: str, *, dir_fd: int) -> None:
        os.rmdir(name, dir_fd=dir_fd)

    def unlink(self, name: str, *, dir_fd: int) -> None:
        os.unlink(name, dir_fd=dir_fd)

    def rename(self, name: str, new_name: str, *, dir_fd: int, new_dir_fd: int) -> None:
        os.rename(name, new_name, src_dir_fd=dir_fd, dst_dir_fd=new_dir_fd)

    def rename_new(self, name: str, new_name: str, *, dir_fd: int, new_dir_fd: int) -> None:
        """Rename, but raise `FileExistsError` where the target exists; in one step.

        A directory replaces an empty one where the system, or the file system, cannot refuse that.
        """
        try:
            renameat2 = _function("renameat2")
            if renameat2 is None:
                raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
            old, new = os.fsencode(name), os.fsencode(new_name)
            _check(renameat2(dir_fd, old, new_dir_fd, new, _RENAME_NOREPLACE), new_name)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOSYS):
                raise
            # A file system without the flag: a hard link refuses an existing name just as well.
            if stat.S_ISDIR(self.lstat(name, dir_fd=dir_fd).st_mode):
                # It has none.
                self.rename(name, new_name, dir_fd=dir_fd, new_dir_fd=new_dir_fd)
                return
            os.link(name, new_name, src_dir_fd=dir_fd, dst_dir_fd=new_dir_fd, follow_symlinks=False)
            with contextlib.suppress(OSError):
                # The target has its content: a second name that stays in staging is recovery's business.
                os.unlink(name, dir_fd=dir_fd)

    def write(self, descriptor: int, data: bytes | memoryview) -> int:
        return os.write(descriptor, data)

    def pwrite(self, descriptor: int, data: bytes, offset: int) -> int:
        return os.pwrite(descriptor, data, offset)

    def cut(self, descriptor: int, size: int) -> None:
        """Cut a file to `size` bytes; what is written next comes there."""
        os.ftruncate(descriptor, size)
        os.lseek(descriptor, size, os.SEEK_SET)

    def read(self, descriptor: int, buffer: bytearray | memoryview) -> int:
        """Read into a buffer, from where the descriptor is; the bytes read, 0 at the end."""
        return os.readv(descriptor, (buffer,))

    def pread(self, descriptor: int, buffer: bytearray | memoryview, offset: int) -> int:
        """Read into a buffer from an offset; where the descriptor is stays. 0 at the end of the file."""
        return os.preadv(descriptor, (buffer,), offset)

    def fchmod(self, descriptor: int, mode: int) -> None:
        os.fchmod(descriptor, mode)

    def utime(self, descriptor: int, mtime_ns: int) -> None:
        os.utime(descriptor, ns=(mtime_ns, mtime_ns))

    def chmod_held(self, descriptor: int, mode: int) -> None:
        """fchmod(2) for a descriptor of O_PATH, which that call refuses."""
        os.chmod(f"/proc/self/fd/{descriptor}", mode)

    def utime_held(self, descriptor: int, mtime_ns: int) -> None:
        """The same for a time."""
        os.utime(f"/proc/self/fd/{descriptor}", ns=(mtime_ns, mtime_ns))

    def fsync(self, descriptor: int) -> None:
        os.fsync(descriptor)

    def fdatasync(self, descriptor: int) -> None:
        """Flush the content, and what is needed to read it; where there is no such call, all."""
        getattr(os, "fdatasync", os.fsync)(descriptor)

    def syncfs(self, descriptor: int) -> None:
        """Flush the whole file system of a descriptor; ENOSYS where this system cannot.

        Since Linux 5.8 it tells what failed since the descriptor was opened.
        """
        syncfs = _function("syncfs")
        if syncfs is None:
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
        _check(syncfs(descriptor), "")

    def lock(self, descriptor: int) -> None:
        """Take the exclusive flock(2) of an open file, or raise `BlockingIOError` at once."""
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def mount_of(self, descriptor: int) -> int:
        """The id of the mount that a descriptor lives on.

        st_dev cannot tell: a bind mount has its source's, and a rename between the two is refused. It has to
        do where nothing tells more.
        """
        try:
            # As bytes: a codec that is first looked up while descriptors run out is never found again.
            with open(f"/proc/self/fdinfo/{descriptor}", "rb", buffering=0) as lines:
                found = _MOUNT.search(lines.read(4096))
        except FileNotFoundError:
            return os.fstat(descriptor).st_dev
        if found is None:
            raise OSError(errno.ENOSYS, "no mnt_id in fdinfo")
        return int(found[1])

    def path_of(self, descriptor: int) -> str:
        """The path of the machine that a descriptor has now."""
        return os.readlink(f"/proc/self/fd/{descriptor}")

    def mount_points(self) -> list[str]:
        """Where something is mounted, as paths of the machine (proc_pid_mountinfo(5): octal escapes)."""
        with open("/proc/self/mountinfo", "rb") as lines:
            points = [line.split()[4] for line in lines]
        return [os.fsdecode(_OCTAL.sub(lambda m: bytes([int(m[1], 8)]), point)) for point in points]
