"""How much of a file that can be continued was written, and how much of it flushed, with their hashes.

Two records, each written over and over; one that is torn is believed by nobody.
"""

from __future__ import annotations

import os
from struct import Struct

from blake3 import blake3

from fileexport.disk.calls import Calls

#: Offset and hash of what lies before it; then a hash of these two.
_NOTE = Struct(">Q32s")
_NOTE_SIZE = _NOTE.size + 32
#: Where in a journal the newest note stands, and the newest that was flushed.
NEWEST, FLUSHED = 0, _NOTE_SIZE

_OPEN = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY


class Journal:
    """The journal beside a partial. `close` it."""

    def __init__(self, calls: Calls, descriptor: int) -> None:
        self._calls = calls
        self.descriptor = descriptor

    @classmethod
    def open(cls, calls: Calls, staging: int, name: str) -> Journal:
        """Open the journal of this name, or make it."""
        try:
            return cls.open_kept(calls, staging, name)
        except FileNotFoundError:
            return cls(calls, calls.open(name, _OPEN | os.O_CREAT | os.O_EXCL, dir_fd=staging))

    @classmethod
    def open_kept(cls, calls: Calls, staging: int, name: str) -> Journal:
        """Open the journal of this name. Raises `FileNotFoundError`."""
        return cls(calls, calls.open(name, _OPEN, dir_fd=staging))

    def read(self) -> tuple[int, bytes]:
        """The newest that it says; (0, b"") where it says nothing that can be believed."""
        return self._at(NEWEST) or self._at(FLUSHED) or (0, b"")

    def offset(self, most: int) -> int:
        """How many bytes it vouches for of a file that has no more than `most`."""
        notes = (self._at(NEWEST), self._at(FLUSHED))
        return next((note[0] for note in notes if note is not None and note[0] <= most), 0)

    def _at(self, place: int) -> tuple[int, bytes] | None:
        buffer = bytearray(_NOTE_SIZE)
        count = self._calls.pread(self.descriptor, buffer, place)
        note, check = bytes(buffer[: _NOTE.size]), bytes(buffer[_NOTE.size :])
        if count != _NOTE_SIZE or blake3(note).digest() != check:
            return None
        offset, digest = _NOTE.unpack(note)
        return offset, digest

    def write(self, place: int, offset: int, digest: bytes) -> None:
        """Say it: the newest, or what was flushed."""
        note = _NOTE.pack(offset, digest)
        self._write(place, note + blake3(note).digest())

    def forget(self) -> bool:
        """Take back the newest; whether one that was flushed is left."""
        is_said = self._at(NEWEST) is not None
        self._write(NEWEST, bytes(_NOTE_SIZE))
        return is_said and self._at(FLUSHED) is not None

    def _write(self, place: int, record: bytes) -> None:
        # A record that is torn costs a resume, not a file.
        while record:
            count = self._calls.pwrite(self.descriptor, record, place)
            place, record = place + count, record[count:]

    def close(self) -> None:
        """Close it; a second time does nothing."""
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            self._calls.close(descriptor)
