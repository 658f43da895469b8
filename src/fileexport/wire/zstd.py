"""Compressed DATA: one zstd frame (RFC 8878) for the content of one DATA frame.

Neither class waits or knows the session: the sides call them where there is time to calculate.
"""

from __future__ import annotations

import sys

from fileexport.errors import CorruptedResponse
from fileexport.wire.frames import LARGEST, Data

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

#: Content of one DATA frame, in bytes, before compression.
MAX_CONTENT = LARGEST.data
#: The fastest level that zstd calls compression: a network of 1 Gbit/s does not wait for it.
_LEVEL = 1
#: Content that passes as it is after a block that did not shrink, until the next try.
PAUSE = 64 << 20
#: What every decoder of RFC 8878 should have room for: windows up to 8 MiB, as a power of two.
_MAX_WINDOW_LOG = 23


class Shrinker:
    """Compresses the content of one file, while that is of use."""

    def __init__(self) -> None:
        self._pause = 0
        self._compressor = zstd.ZstdCompressor(level=_LEVEL)

    def pack(self, content: bytes | bytearray | memoryview) -> bytes | None:
        """One zstd frame of `content`, or None where it is to be sent as it is.

        That is where it would not become smaller by an eighth, and for 64 MiB afterwards. Raises `ValueError`
        for more than 1 MiB, or nothing: that is no content of a DATA frame.
        """
        size = len(content)
        if not 0 < size <= MAX_CONTENT:
            raise ValueError(f"{size} bytes are no content of DATA")
        if self._pause > 0:
            self._pause -= size
            return None
        packed = self._compressor.compress(content, mode=zstd.ZstdCompressor.FLUSH_FRAME)
        if len(packed) > size - size // 8:
            self._pause = PAUSE
            return None
        return packed


class Grower:
    """Unpacks the DATA of one stream. It keeps at most one compressed frame, as far as it has come."""

    def __init__(self) -> None:
        self._kept = bytearray()

    def feed(self, data: Data) -> bytes | memoryview | None:
        """The content that is complete with this piece; None until more has come.

        Raises `CorruptedResponse` for what is not one whole zstd frame of 1 byte to 1 MiB. Content that is
        not compressed passes through.
        """
        if not data.compressed:
            return data.piece
        if not data.left and not self._kept:
            return _unpacked(data.piece)
        self._kept += data.piece
        if data.left:
            return None
        whole, self._kept = self._kept, bytearray()
        return _unpacked(whole)


def _unpacked(packed: bytes | bytearray | memoryview) -> bytes:
    reader = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: _MAX_WINDOW_LOG})
    try:
        # One byte over the limit is enough to see that it is exceeded, and no more is ever made.
        content = reader.decompress(packed, max_length=MAX_CONTENT + 1)
    except zstd.ZstdError:
        raise CorruptedResponse("compressed DATA cannot be read") from None
    if not reader.eof or reader.unused_data or not 0 < len(content) <= MAX_CONTENT:
        raise CorruptedResponse("compressed DATA is not one frame of 1 byte to 1 MiB of content")
    return content
