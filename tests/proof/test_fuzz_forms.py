"""Random and half-valid bytes for everything that reads forms and digest fields: typed errors only."""

from __future__ import annotations

import contextlib
import os
import re

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fileexport.errors import FileExportError
from fileexport.web.digests import ALGORITHMS, digests_of, wanted
from fileexport.web.forms import MAX_FIELD_BYTES, Event, Field, FileBegins, FileEnds, Multipart, form_of
from tests.test_forms import BODY, BOUNDARY, MULTIPART, URLENCODED
from tests.test_web_digests import SHA_256, SHA_512

EXAMPLES = 20_000 if os.environ.get("FILEEXPORT_SOAK") else 1_000
fuzz = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None)

PIECES = st.one_of(
    st.sampled_from(
        [
            *(BODY[at : at + 60] for at in range(0, len(BODY), 60)),
            b"--" + BOUNDARY.encode(),
            b"\r\n--" + BOUNDARY.encode() + b"\r\n",
            b"--\r\n",
            b"\r\n",
            b"\r",
            b'Content-Disposition: form-data; name="a"',
            b'; filename="b"',
            b"; filename*=UTF-8''%FF%00",
            b"Content-Length: 4\r\n",
            b" folded\r\n",
            b'"\\"',
        ]
    ),
    st.binary(max_size=6),
)
BODIES = st.one_of(
    st.lists(PIECES, max_size=12).map(b"".join),
    st.builds(
        lambda at, length, more: BODY[:at] + more + BODY[at + length :],
        st.integers(0, len(BODY)),
        st.integers(0, 20),
        PIECES,
    ),
)
_BARE = re.compile(rb"(?<!\r)\n")
FIELDS = st.lists(
    st.one_of(
        st.sampled_from(
            [SHA_256, SHA_512, b"sha-256", b"sha-512=", b"=", b":", b",", b" ", b"\t", b";a=1", b"("]
        )
        | st.sampled_from([b")", b'"', b"\\", b"?1", b"1.5", b"-1", b"10", b"a", b"*", b":AA==:", b"\xff"]),
        st.binary(max_size=3),
    ),
    max_size=10,
).map(b"".join)


def events_of(body: bytes, size: int) -> tuple[list[Event], str | None]:
    """What a form gives in pieces of this size, and the kind of error that ended it."""
    parser = Multipart(BOUNDARY)
    found: list[Event] = []
    try:
        for at in range(0, len(body), size):
            for event in parser.feed(body[at : at + size]):
                if isinstance(event, bytes) and found and isinstance(found[-1], bytes):
                    found[-1] += event
                else:
                    found.append(event)
        parser.close()
    except FileExportError as error:
        return found, type(error).__name__
    return found, None


class FormTests(SynchronousTestCase):
    """Forms that nobody meant."""

    @given(BODIES, st.integers(1, 90))
    @fuzz
    def test_multipart(self, body: bytes, size: int) -> None:
        """A form is the same in any pieces, and its files begin, have content, and end.

        Only a bare line feed before a header's name is passed over by the parser where the whole line came
        at once, and refused where it did not: what was read until then is the same.
        """
        found, error = events_of(body, size)
        others, other_error = events_of(body, max(len(body), 1))
        if error == other_error:
            self.assertEqual(found, others)
        else:
            self.assertTrue(_BARE.search(body))
            self.assertIsNone(other_error)
            self.assertEqual(found, others[: len(found)])
        is_open = False
        for event in found:
            self.assertIs(isinstance(event, bytes | FileEnds), is_open)
            is_open = isinstance(event, FileBegins | bytes)
        if error is None:
            self.assertFalse(is_open)
        fields = sum(len(event.name) + len(event.value) for event in found if isinstance(event, Field))
        self.assertLessEqual(fields, MAX_FIELD_BYTES)

    @given(BODIES | st.text("entry=a%2F+&;\xe9", max_size=40).map(str.encode))
    @fuzz
    def test_whole_forms(self, body: bytes) -> None:
        """A form without files has fields, or is refused."""
        for lines in (URLENCODED, MULTIPART):
            with contextlib.suppress(FileExportError):
                form_of(lines, body).all("entry")


class DigestTests(SynchronousTestCase):
    """Digest fields that nobody meant."""

    @given(FIELDS)
    @fuzz
    def test_fields(self, field: bytes) -> None:
        """They give digests of the right length and known algorithms, or are refused; a wish never is."""
        self.assertIn(wanted((field,)), (None, *ALGORITHMS))
        try:
            found = digests_of((field,))
        except FileExportError:
            return
        for name, digest in found.items():
            self.assertEqual(len(digest), len(ALGORITHMS[name]().digest()))
