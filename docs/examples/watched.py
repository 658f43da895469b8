"""Show how far an upload is, and cancel it when it takes too long."""

import sys
import time

from fileexport import Client


def upload_within(client: Client, seconds: float, source: str, directory: str) -> bool:
    """True when the file is committed; False when the time was over, and its name is not there."""
    end = time.monotonic() + seconds

    def process(chunk: bytes, remaining: int, size: int, name: str) -> bool:
        # `remaining` counts the chunk in hand.
        done = size - remaining + len(chunk)
        print(f"\r{name}: {done:,} of {size:,} bytes", end="", file=sys.stderr)
        return time.monotonic() < end

    return client.upload_file(source, directory, process_chunk=process)
