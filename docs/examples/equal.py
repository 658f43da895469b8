"""Mirror a directory to the server: look first, then do it, and say what was left out."""

import sys

from fileexport import Client, DeletionRefused, SyncProgress, synchronize_upload


def mirror(client: Client, source: str, destination: str, most: int) -> bool:
    """Make `destination` equal to `source` if that removes at most `most` entries; True when all is equal."""
    try:
        planned = synchronize_upload(
            client, source, destination, delete=True, max_delete=most, dry_run=True
        ).plan.totals
    except DeletionRefused as error:
        print(error, file=sys.stderr)
        return False
    print(f"{planned.files} files, {planned.bytes:,} bytes at most, {planned.removed} to be removed")

    def show(now: SyncProgress) -> None:
        if now.action is not None and now.action.kind == "remove":
            print(f"removed {now.action.path}")

    result = synchronize_upload(client, source, destination, delete=True, max_delete=most, progress=show)
    print(f"sent {result.bytes_sent:,} bytes, saved {result.bytes_saved:,}")
    for problem in result.problems:
        print(f"left out: {problem.path}: {problem.why}", file=sys.stderr)
    return not result.problems
