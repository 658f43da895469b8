"""How much a proof does, and how much it did."""

from __future__ import annotations

import atexit
import os

#: Whether the full counts are asked for, which take minutes instead of seconds.
SOAK = bool(os.environ.get("FILEEXPORT_SOAK"))


class Tally:
    """Counts what a proof went through and says so on stdout, in one line, when the process ends."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._parts: dict[str, int] = {}

    def add(self, number: int, part: str = "") -> None:
        """Count `number` more; with `part` the line says how many of which."""
        if not self._parts:
            # A killed or forked process ends by os._exit, and says nothing.
            atexit.register(self._say)
        self._parts[part] = self._parts.get(part, 0) + number

    def _say(self) -> None:
        parts = ", ".join(f"{part} {number}" for part, number in self._parts.items() if part)
        print(f"{self._what}: {sum(self._parts.values())}{f' ({parts})' if parts else ''}", flush=True)
