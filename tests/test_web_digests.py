"""Digest fields: read as RFC 8941 has them, compared, written."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fileexport.errors import BadRequestError
from fileexport.web.digests import ALGORITHMS, Sums, digests_of, field_of, wanted

CONTENT = b'{"hello": "world"}\n'
#: The digests of that content in RFC 9530, appendix B.1 and D.
SHA_256 = b"sha-256=:RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=:"
SHA_512 = (
    b"sha-512=:YMAam51Jz/jOATT6/zvHrLVgOYTGFy1d6GJiOHTohq4yP+pgk4vf2aCsyRZOtw8MjkM7iw7yZ/WkppmM44T3qg==:"
)
NOTHING = {"sha-256": hashlib.sha256().digest()}


def asked(**fields: bytes) -> Sums | None:
    """What these fields ask for, named with underscores."""

    def lines(name: bytes) -> Sequence[bytes]:
        value = fields.get(name.decode().replace("-", "_"))
        return () if value is None else (value,)

    return Sums.asked(lines)


class FieldTests(SynchronousTestCase):
    """Digests that were sent."""

    def test_example_of_the_rfc(self) -> None:
        """The RFC's own digests are read, are those of its content, and are written as they came."""
        found = digests_of((SHA_256, SHA_512))
        self.assertEqual(found["sha-256"], hashlib.sha256(CONTENT).digest())
        self.assertEqual(found["sha-512"], hashlib.sha512(CONTENT).digest())
        self.assertEqual(field_of(found), SHA_256 + b", " + SHA_512)

    def test_unknown_algorithms(self) -> None:
        """Algorithms that we do not know are passed over, whatever they say."""
        others = b'md5=:AAAA:, unixsum=30637, x="a, b";p=1, flag, list=(1 "2" :AA==:;q);w=?0, '
        self.assertEqual(digests_of((others + SHA_256,)).keys(), {"sha-256"})
        self.assertEqual(digests_of((b"md5=:AAAA:",)), {})
        self.assertEqual(digests_of(()), {})

    def test_several_lines(self) -> None:
        """Lines of one field are one dictionary, and the last value of an algorithm counts."""
        last = field_of(NOTHING)
        self.assertEqual(digests_of((SHA_256, last)), NOTHING)
        self.assertEqual(digests_of((SHA_256 + b" \t,\t" + last + b"  ",)), NOTHING)

    def test_parameters_and_padding(self) -> None:
        """Parameters mean nothing, and padding may be missing."""
        value = b64encode(NOTHING["sha-256"]).rstrip(b"=")
        self.assertEqual(digests_of((b"sha-256=:%s:; a=1;b" % value,)), NOTHING)

    def test_malformed(self) -> None:
        """What is no dictionary of byte sequences of the right length is refused."""
        short = b"sha-256=:%s:" % b64encode(bytes(31))
        for field in (
            short,
            b"sha-256",
            b"sha-256=1",
            b"sha-256=abc",
            b"sha-256=:a:",
            b"sha-256=:RK/0==qy:",
            b"sha-256=RK/0qy18MlBSVnWgjwz6lZEWjP/lF5HF9bvEF8FabDg=",
            b"SHA-256=:AAAA:",
            SHA_256 + b",",
            SHA_256 + b" " + SHA_512,
            b",",
            b"a=(1",
            b'a="\xff"',
            b"=1",
        ):
            with self.assertRaises(BadRequestError, msg=field):
                digests_of((field,))

    @given(st.binary(max_size=200) | st.text('sha-2561*=:;,()"\\?. Az/', max_size=60).map(str.encode))
    @settings(max_examples=500, deadline=None)
    def test_anything(self, field: bytes) -> None:
        """Whatever a field holds, it gives digests of the right length or is refused."""
        wanted((field,))
        try:
            found = digests_of((field,))
        except BadRequestError:
            return
        for name, digest in found.items():
            self.assertEqual(len(digest), len(ALGORITHMS[name]().digest()))


class WantedTests(SynchronousTestCase):
    """Digests that are asked for."""

    def test_preferences(self) -> None:
        """The best liked algorithm that we know is taken; none at all where all are unwanted."""
        for field, expected in (
            (b"sha-256=1", "sha-256"),
            (b"sha-512=3, sha-256=10, unixsum=0", "sha-256"),
            (b"sha-512=3, sha-256=2", "sha-512"),
            (b"sha-512=5, sha-256=5", "sha-256"),
            (b"md5=10, sha-512=1", "sha-512"),
            (b"sha-256=0", None),
            (b"md5=3", None),
            (b"sha-256=11", None),
            (b"sha-256=1.5", None),
            (b"sha-256", None),
            (b"sha-256=", None),
            (b"", None),
        ):
            self.assertEqual(wanted((field,)), expected, field)
        self.assertIsNone(wanted(()))


class SumsTests(SynchronousTestCase):
    """Content that is hashed while it comes."""

    def test_nothing_asked(self) -> None:
        """Who sends no digest and wants none has none computed."""
        self.assertIsNone(asked())
        self.assertIsNone(asked(content_digest=b"md5=:AAAA:", want_repr_digest=b"sha-256=0"))

    def test_right_content(self) -> None:
        """Content that is what its digests say passes, in whatever pieces it comes."""
        sums = asked(content_digest=SHA_256, repr_digest=SHA_512)
        assert sums is not None
        sums.update(CONTENT[:5])
        sums.update(memoryview(CONTENT)[5:])
        sums.check()
        self.assertEqual(sums.field, SHA_256 + b", " + SHA_512)

    def test_wrong_content(self) -> None:
        """Content that is not what one of its digests says is refused."""
        for fields in ({"content_digest": SHA_256}, {"repr_digest": SHA_512}):
            sums = asked(**fields)
            assert sums is not None
            sums.update(CONTENT + b" ")
            with self.assertRaises(BadRequestError):
                sums.check()

    def test_wanted(self) -> None:
        """A digest that is only wanted is answered, and checks nothing."""
        sums = asked(want_repr_digest=b"sha-256=1")
        assert sums is not None
        sums.update(CONTENT)
        sums.check()
        self.assertEqual(sums.field, SHA_256)

    def test_contradiction(self) -> None:
        """Two different digests of one content are refused before it is read."""
        with self.assertRaises(BadRequestError):
            asked(content_digest=SHA_256, repr_digest=field_of(NOTHING))
        self.assertIsNotNone(asked(content_digest=SHA_256, repr_digest=SHA_256))
