"""Processes of other users, or of a root that is bound by file modes: who asks decides what may be done."""

from __future__ import annotations

import os
import shutil
import sys

from twisted.trial.unittest import SkipTest

#: Nobody's number on a usual system. Not 65534: the kernel shows that for users whom it has no name for.
OTHER = 65533

_BECOME = """
import os, socket, struct, sys
uid = int(sys.argv.pop(1))
os.setgroups([])
os.setgid(uid)
os.setuid(uid)
"""
_EXECUTE = "os.execv(sys.argv[1], sys.argv[1:])"


def as_user(uid: int) -> tuple[str, ...]:
    """The words before a command, named by its whole path, so that it runs as that user and in no group."""
    return (sys.executable, "-c", _BECOME + _EXECUTE, str(uid))


def python_as_user(uid: int, code: str) -> tuple[str, ...]:
    """A command that runs this code as that user, who need not be let in where our Python lies.

    It has `os`, `socket`, `struct` and `sys`, and imports nothing more.
    """
    return (sys.executable, "-c", _BECOME + code, str(uid))


def need_other_users() -> None:
    """Skip the test where this process may not start one of another user."""
    if os.geteuid() != 0:
        raise SkipTest("only root can start processes of another user: nothing is proven about those")


def bound_by_modes() -> tuple[str, ...]:
    """The words before a command so that it cannot read a file whose mode forbids that, root neither.

    Another user would do as well, but cannot run a Python that lies in root's home. Skips the test where
    this cannot be.
    """
    if os.geteuid() != 0:
        return ()
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        raise SkipTest("there is no setpriv (util-linux): root reads every file, whatever its mode")
    return (setpriv, "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all")
