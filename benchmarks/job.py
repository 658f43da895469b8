"""One compression as a job does it, in a process: `python -m benchmarks.job ROOT NAME FORMAT safe|fast`.

Prints what the job says of its archive.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence

from fileexport.compression import Compression
from fileexport.disk.jail import Jail
from fileexport.exports import Exports
from fileexport.meter import Meter
from fileexport.paths import RelPath
from fileexport.tokens import Principal, Right


def main(arguments: Sequence[str]) -> None:
    """Make the archive."""
    root, name, form, durability = arguments
    jail = Jail(root, durable=durability == "safe")
    who = Principal("benchmark", Right.ALL, RelPath())
    order = Exports(jail).compress_order(who, RelPath.parse(name), form)
    work = Compression(jail, len(os.sched_getaffinity(0)))
    print(json.dumps(work(order, Meter(lambda: 0.0))))


if __name__ == "__main__":
    main(sys.argv[1:])
