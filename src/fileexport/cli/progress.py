"""How far a transfer is: a display on a terminal, events for programs, or nothing.

rich is imported only where a terminal shows it.
"""

from __future__ import annotations

import sys
import time
from typing import Any

from fileexport.cli.output import Output, shown

#: Seconds between two events for programs.
EVENT_TIME = 0.25


class Progress:
    """Counts bytes and files. This one shows nothing."""

    #: Whether anybody sees it.
    is_shown = False

    def __init__(self) -> None:
        self.files = self.bytes = 0
        self.total_files = self.total_bytes = 0

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def expect(self, size: int) -> None:
        """One more file will be moved."""
        self.total_files += 1
        self.total_bytes += size

    def moved(self, path: str, size: int, amount: int) -> None:
        """So many more bytes of a file of `size` bytes are there."""
        self.bytes += amount
        self.show(path, size, amount)

    def done(self, path: str, size: int, counted: int) -> None:
        """A file is there; of its bytes `counted` were told before."""
        self.files += 1
        self.moved(path, size, size - counted)

    def show(self, path: str, size: int, amount: int) -> None:
        """Something has changed."""

    def stop(self) -> None:
        """Nothing more will change."""


class Events(Progress):
    """`progress` events, a few a second."""

    is_shown = True

    def __init__(self, output: Output) -> None:
        super().__init__()
        self._output = output
        self._begun = self._last = time.monotonic()

    def show(self, path: str, size: int, amount: int) -> None:
        """An event, where the last was long enough ago."""
        now = time.monotonic()
        if now - self._last < EVENT_TIME:
            return
        self._last = now
        self._output.event(
            *("progress", path),
            files=self.files,
            total_files=self.total_files,
            bytes=self.bytes,
            total_bytes=self.total_bytes,
            rate=round(self.bytes / (now - self._begun)),
        )
        # In a pipe too, while it is news.
        self._output.flush()


class Display(Progress):
    """Two lines on the terminal: the file that is moving, and all of them."""

    is_shown = True

    def __init__(self, output: Output) -> None:
        super().__init__()
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )
        from rich.progress import Progress as Rich
        from rich.text import Text

        self._text = Text
        # rich itself honours NO_COLOR and dumb terminals.
        self._rich = Rich(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=False,
        )
        self._all = self._rich.add_task("", total=None)
        self._file: Any = None
        self._path = ""
        self._output = output
        output.above = self._above
        self._rich.start()

    def show(self, path: str, size: int, amount: int) -> None:
        """Move the bars."""
        if path != self._path:
            self._path = path
            if self._file is not None:
                self._rich.remove_task(self._file)
                self._file = None
            if self.total_files > 1 and amount < size:
                self._file = self._rich.add_task(_short(path), total=size)
        if self._file is not None:
            self._rich.advance(self._file, amount)
        several = f"{self.files:,} of {self.total_files:,} files"
        self._rich.update(
            self._all,
            description=several if self.total_files > 1 else _short(path),
            completed=self.bytes,
            total=self.total_bytes,
        )

    def stop(self) -> None:
        """Leave the last state on the screen."""
        self._output.above = None
        if self._file is not None:
            self._rich.remove_task(self._file)
            self._file = None
        self._rich.stop()

    def _above(self, text: str) -> None:
        """A line of text above the bars."""
        self._rich.console.print(self._text(shown(text)), soft_wrap=True)


def _short(path: str) -> str:
    """The end of a path, which tells most, for a column."""
    path = shown(path)
    return path if len(path) <= 30 else f"…{path[-29:]}"


def progress_for(output: Output, wanted: bool) -> Progress:
    """What shows the progress of a command: only a terminal or a program is shown any, if it asked."""
    if wanted and output.as_json:
        return Events(output)
    if wanted and not output.quiet and sys.stderr is not None and sys.stderr.isatty():
        return Display(output)
    return Progress()
