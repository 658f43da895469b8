"""Refuse names that reach the disk outside the rooms that may: `python tools/banned_calls.py PACKAGE`.

Prints one line for each such name in a file, and exits with 1 when there was one. It reads references, not
only calls, and follows imports and their aliases within a file.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

#: Where a name becomes a file, and where a path is only spelled.
FILES = "files"
SPELLING = "spelling"

#: The rooms below the package, what each may do, and why.
ROOMS: dict[str, tuple[frozenset[str], str]] = {
    "disk/": (frozenset({FILES, SPELLING}), "the only way to an exported file: a name becomes a descriptor"),
    "cli/": (frozenset({FILES, SPELLING}), "files of the user's own, on the user's side"),
    "client/": (frozenset({FILES, SPELLING}), "files of the user's own, on the user's side"),
    "startup.py": (frozenset({FILES, SPELLING}), "reads the files that config and tokens parse; the state"),
    "endpoints.py": (frozenset({FILES, SPELLING}), "sockets that have a name, certificates and keys"),
    "logs.py": (frozenset({FILES, SPELLING}), "the log file and its rotation"),
    "service.py": (frozenset({SPELLING}), "says where things are"),
    "testing.py": (frozenset({FILES, SPELLING}), "temporary directories and tokens of tests"),
}

_OS = """
    access chdir chmod chown chroot fwalk getxattr lchown link listdir listxattr lstat makedirs mkdir mkfifo
    mknod open readlink remove removedirs removexattr rename renames replace rmdir scandir setxattr stat
    statvfs symlink truncate unlink utime walk
"""
#: What is watched: a dotted name covers everything below it.
BANNED: dict[str, str] = {
    **{f"os.{name}": FILES for name in _OS.split()},
    **dict.fromkeys(("builtins.open", "io.open", "io.open_code", "io.FileIO", "codecs.open"), FILES),
    **dict.fromkeys(("shutil", "tempfile", "glob", "twisted.python.filepath"), FILES),
    **dict.fromkeys(("os.path", "posixpath", "pathlib.Path", "pathlib.PosixPath"), SPELLING),
}


def references(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield line and full dotted name of whatever the module takes from elsewhere."""
    names = {"open": "builtins.open"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name.partition(".")[0]
                names[alias.asname or top] = alias.name if alias.asname else top
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom) and not node.level:
            for alias in node.names:
                names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
                yield node.lineno, f"{node.module}.{alias.name}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Load):
            first, dot, rest = ast.unparse(node).partition(".")
            if first in names:
                yield node.lineno, names[first] + dot + rest


def banned(reference: str) -> str | None:
    """The entry of `BANNED` that covers the dotted name, or None."""
    while reference and reference not in BANNED:
        reference = reference.rpartition(".")[0]
    return reference or None


def problems(path: Path, room: str) -> Iterator[str]:
    """Yield one line for each name in the file that its room may not use."""
    allowed = next((may for prefix, (may, _) in ROOMS.items() if room.startswith(prefix)), frozenset())
    found: dict[str, set[int]] = {}
    for line, reference in references(ast.parse(path.read_text("utf-8"))):
        if (name := banned(reference)) and BANNED[name] not in allowed:
            found.setdefault(name, set()).add(line)
    for name, lines in found.items():
        owners = ", ".join(owner for owner, (may, _) in ROOMS.items() if BANNED[name] in may)
        first, *others = sorted(lines)
        also = f" (lines {', '.join(map(str, others))} too)" if others else ""
        yield f"{path}:{first}: {name}{also} is for {owners}"


def main(arguments: list[str]) -> int:
    """Check every module of the packages named; return the exit status."""
    lines = [
        line
        for package in map(Path, arguments)
        for path in sorted(package.rglob("*.py"))
        for line in problems(path, path.relative_to(package).as_posix())
    ]
    print(*lines, sep="\n", end="\n" if lines else "")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
