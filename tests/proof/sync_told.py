"""A program that synchronises and says at once what is there: one that is killed has said all it knew."""

from __future__ import annotations

import os
import sys

from fileexport import Client, SyncProgress, synchronize_download, synchronize_upload

#: Actions that bring content to a path.
CONTENT = frozenset(("send", "update", "move", "copy"))


def command(way: str, here: str, there: str) -> tuple[str, ...]:
    """What starts it; its environment names server and token, as that of `fileexport` does."""
    return sys.executable, "-m", "tests.proof.sync_told", way, here, there


def told(progress: SyncProgress) -> None:
    """Write the path of a file that is there now."""
    action = progress.action
    if action is not None and action.kind in CONTENT:
        os.write(1, os.fsencode(action.path) + b"\n")


def main() -> None:
    """Synchronise `up` or `down`."""
    way, here, there = sys.argv[1:]
    with Client("127.0.0.1", int(os.environ["FILEEXPORT_PORT"]), os.environ["FILEEXPORT_TOKEN"]) as client:
        if way == "up":
            synchronize_upload(client, here, there, delete=True, progress=told)
        else:
            synchronize_download(client, there, here, delete=True, progress=told)


if __name__ == "__main__":
    main()
