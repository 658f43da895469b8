"""A small disk of the kernel's own for a part of a test, in a child whose mounts nobody else sees."""

from __future__ import annotations

import ctypes
import os
import traceback
from collections.abc import Callable
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

_CLONE_NEWNS = 0x00020000
_MS_REC, _MS_PRIVATE = 0x4000, 0x40000
_FORBIDDEN = 77


class Forbidden(Exception):
    """The child may not mount."""


def mount(root: Path, options: str) -> None:
    """Put a tmpfs onto a directory, for this process and its children alone. Raises `Forbidden`."""
    libc = ctypes.CDLL(None, use_errno=True)
    for function, arguments in (
        (libc.unshare, (_CLONE_NEWNS,)),
        (libc.mount, (b"none", b"/", None, ctypes.c_ulong(_MS_REC | _MS_PRIVATE), None)),
        (libc.mount, (b"none", os.fsencode(root), b"tmpfs", ctypes.c_ulong(0), options.encode())),
    ):
        if function(*arguments) != 0:
            raise Forbidden


def in_child(case: SynchronousTestCase, function: Callable[[], object]) -> str:
    """Run a function in a child, which may mount and limit what it likes; what it returned, as text."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.write(writing, str(function()).encode())
            code = 0
        except Forbidden:
            code = _FORBIDDEN
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(writing)
    with open(reading, encoding="utf-8") as pipe:
        said = pipe.read()
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code == _FORBIDDEN:
        raise SkipTest("a tmpfs cannot be mounted here: that takes root and CAP_SYS_ADMIN")
    case.assertEqual(code, 0)
    return said


def in_small_disk(case: SynchronousTestCase, root: Path, size: int, function: Callable[[], object]) -> None:
    """Run a function in a child for which `root` is a disk of so many bytes."""

    def inside() -> None:
        mount(root, f"size={size}")
        function()

    in_child(case, inside)
