"""Bytes that are noted down while an archive is made and belong at its end."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

from fileexport.disk.staging import Staged

#: Bytes that stay in memory where there is a file for the rest.
_IN_MEMORY = 1 << 20


class Notes:
    """Written first, read once afterwards: in memory, and what is more than 1 MiB in a file of `spill`.

    Without `spill` all of it stays in memory. `spill` begins a staged file, which is never committed; it is
    called at most once.
    """

    def __init__(self, spill: Callable[[], Staged] | None = None) -> None:
        self.size = 0
        self._spill = spill
        self._held = bytearray()
        self._file: Staged | None = None

    def write(self, data: bytes) -> None:
        """Append. Raises `OSError` as writing does."""
        self.size += len(data)
        self._held += data
        if len(self._held) < _IN_MEMORY or self._spill is None:
            return
        if self._file is None:
            self._file = self._spill()
        self._file.write(memoryview(self._held))
        self._held = bytearray()

    def pieces(self) -> Iterator[bytes]:
        """All that was written. Raises `OSError` as reading does."""
        offset = 0
        while self._file is not None and offset < self.size - len(self._held):
            piece = os.pread(self._file.descriptor, _IN_MEMORY, offset)
            if not piece:
                raise OSError("the notes were cut")
            offset += len(piece)
            yield piece
        yield bytes(self._held)

    def close(self) -> None:
        """Throw the file away, where there is one; a second time does nothing."""
        if self._file is not None:
            self._file.discard()
