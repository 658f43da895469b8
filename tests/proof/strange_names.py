"""`fileexport` with names of the test's own: looking one up gives what a file says, answer by answer."""

from __future__ import annotations

import json
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from itertools import chain, repeat
from pathlib import Path
from typing import Any

from fileexport.cli import main

#: The answers that a name gives, one lookup after the other, and the last one from then on: addresses that
#: the system is asked about instead. None: the lookup never ends.
Names = Mapping[str, list[list[str] | None]]


def command(file: Path, names: Names) -> tuple[str, ...]:
    """What starts `fileexport` with these names, which are written to a file."""
    file.write_text(json.dumps(names))
    return sys.executable, "-m", "tests.proof.strange_names", str(file)


def strange(lookup: Callable[..., list[Any]], names: Names) -> Callable[..., list[Any]]:
    """`lookup`, which is `socket.getaddrinfo`, but for these names."""
    answers = {name: chain(found, repeat(found[-1])) for name, found in names.items()}
    one_at_a_time = threading.Lock()

    def look_up(host: str, *arguments: Any, **keywords: Any) -> list[Any]:
        if host not in answers:
            return lookup(host, *arguments, **keywords)
        with one_at_a_time:
            addresses = next(answers[host])
        if addresses is None:
            print(f"{host} is never found", flush=True)
            threading.Event().wait()
        return [place for text in addresses or () for place in lookup(text, *arguments, **keywords)]

    return look_up


if __name__ == "__main__":
    socket.getaddrinfo = strange(socket.getaddrinfo, json.loads(Path(sys.argv.pop(1)).read_text()))
    main()
