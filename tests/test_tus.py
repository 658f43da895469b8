"""The fields of tus, read and written."""

from __future__ import annotations

import hashlib
from base64 import b64encode

from twisted.trial.unittest import SynchronousTestCase

from fileexport.errors import BadRequestError
from fileexport.web import tus


def checksum(algorithm: str, content: bytes) -> bytes:
    """A field for this content."""
    return algorithm.encode() + b" " + b64encode(hashlib.new(algorithm, content).digest())


class MetadataTests(SynchronousTestCase):
    """Upload-Metadata: keys, and values in base64."""

    def test_pairs(self) -> None:
        """Values may be anything, empty or missing; all of it is remembered as it was sent."""
        line = b"filename d29ybGQucGRm,is_confidential,empty ,raw /w=="
        found = tus.read_metadata([line])
        self.assertEqual(
            found.values, {"filename": b"world.pdf", "is_confidential": b"", "empty": b"", "raw": b"\xff"}
        )
        self.assertEqual(found.text.encode(), line)

    def test_spelling(self) -> None:
        """Spaces around a comma, and more than one line, mean the same."""
        found = tus.read_metadata([b"a YQ== , b Yg==", b"c Yw=="])
        self.assertEqual(found.values, {"a": b"a", "b": b"b", "c": b"c"})

    def test_none(self) -> None:
        """No field and an empty one, as tuspy sends it, say nothing."""
        for lines in ([], [b""]):
            self.assertEqual(tus.read_metadata(lines), tus.Metadata("", {}))

    def test_refused(self) -> None:
        """A key twice, none at all, one outside ASCII, no base64, and too much of it are refused."""
        many = b",".join(b"k%d" % number for number in range(tus.MAX_KEYS + 1))
        long = b"a " + b"A" * tus.MAX_METADATA
        for line in (b"a,a", b",a", b"a,,b", b" ", b"\xe4 YQ==", b"a Y", b"a Y!Q==", b"a b c", many, long):
            with self.subTest(line[:20]):
                self.assertRaises(BadRequestError, tus.read_metadata, [line])

    def test_times(self) -> None:
        """A file's time is in milliseconds; the first that is a number counts, and no other."""
        for pairs, found in (
            ({"mtime": b"1795273794769"}, 1795273794769 * 10**6),
            ({"mtime": b"-1000.5"}, -(10**9)),
            ({"lastModified": b"17"}, 17 * 10**6),
            ({"mtime": b"undefined", "lastModified": b"17"}, 17 * 10**6),
            ({"mtime": b"9999999999999"}, None),
            ({"mtime": b"12345678901234567890"}, None),
            ({"mtime": b""}, None),
            ({}, None),
        ):
            with self.subTest(pairs):
                self.assertEqual(tus.Metadata("", pairs).mtime_ns, found)


class ChecksumTests(SynchronousTestCase):
    """Upload-Checksum: what a body must come to."""

    def test_algorithms(self) -> None:
        """Every algorithm that is announced knows its content from another."""
        for name in tus.ALGORITHMS:
            with self.subTest(name):
                found = tus.read_checksum([checksum(name.decode(), b"hello world")])
                assert found is not None
                found.update(b"hello ")
                self.assertRaises(tus.ChecksumMismatch, found.check)
                found.update(b"world")
                found.check()

    def test_none(self) -> None:
        """Without the field there is nothing to be checked."""
        self.assertIsNone(tus.read_checksum([]))

    def test_refused(self) -> None:
        """Another algorithm, other spellings, no base64, no value, and two of them are refused."""
        good = checksum("sha1", b"")
        self.assertRaises(tus.UnknownAlgorithm, tus.read_checksum, [b"crc32 AAAAAA=="])
        for lines in ([good.upper()], [b"sha1 !"], [b"sha AAAA"], [good, good], [b""], [b"sha1"], [b"sha1 "]):
            with self.subTest(lines):
                self.assertRaises(BadRequestError, tus.read_checksum, lines)

    def test_length(self) -> None:
        """A digest of another length is one that nothing comes to."""
        found = tus.read_checksum([b"sha1 AAAA"])
        assert found is not None
        self.assertRaises(tus.ChecksumMismatch, found.check)


class FieldTests(SynchronousTestCase):
    """The others."""

    def test_numbers(self) -> None:
        """A number of bytes has digits and nothing else; a huge one is only huge."""
        self.assertEqual(tus.read_number([b"007"], "Upload-Length"), 7)
        self.assertEqual(tus.read_number([b"0"], "Upload-Length"), 0)
        self.assertIsNone(tus.read_number([], "Upload-Length"))
        self.assertGreater(tus.read_number([b"9" * 5000], "Upload-Length") or 0, 1 << 59)
        for lines in ([b"-1"], [b"+1"], [b"1.0"], [b""], [b"0x1"], [b"\xb2"], [b"1", b"1"], [b"1 2"]):
            with self.subTest(lines):
                self.assertRaises(BadRequestError, tus.read_number, lines, "Upload-Length")

    def test_parts(self) -> None:
        """The type of a part counts, in any case and with parameters, and once."""
        for lines, found in (
            ([tus.CONTENT_TYPE], True),
            ([b"Application/Offset+Octet-Stream ; x=y"], True),
            ([b"application/octet-stream"], False),
            ([tus.CONTENT_TYPE] * 2, False),
            ([], False),
        ):
            with self.subTest(lines):
                self.assertIs(tus.is_part(lines), found)

    def test_expires(self) -> None:
        """The end of an upload is a date as HTTP writes it."""
        self.assertEqual(tus.expires(1_800_000_000.9), (b"Upload-Expires", b"Fri, 15 Jan 2027 08:00:00 GMT"))
