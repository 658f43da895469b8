"""Random and half-valid bytes as paths: a typed refusal or a path that can lead nowhere else."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fileexport.errors import FileNameError
from fileexport.paths import MAX_DEPTH, MAX_NAME, MAX_PATH, RelPath
from tests.hostile import RAW_URLS, VECTORS

EXAMPLES = 200_000 if os.environ.get("FILEEXPORT_SOAK") else 20_000
fuzz = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None)

#: Pieces that mean something to some decoder: chance alone would seldom put two of them together.
PIECES = (
    *(
        b".",
        b"..",
        b"/",
        b"//",
        b"\\",
        b"%",
        b"%2e",
        b"%2E",
        b"%2f",
        b"%5c",
        b"%00",
        b"%25",
        b"\0",
        b"%c0%ae",
    ),
    *(
        b"a",
        b" ",
        b"~",
        b".fileexport",
        b"%2efileexport",
        b"\xff",
        b"\xc3\xa9",
        b"%ed%a0%80",
        b"n" * 255,
        b"d/" * 32,
    ),
)
URLS = st.one_of(
    st.binary(max_size=300),
    st.lists(st.one_of(st.sampled_from(PIECES), st.binary(max_size=3)), max_size=40).map(b"".join),
    st.builds(
        lambda known, at, more: known[:at] + more + known[at:],
        st.sampled_from(RAW_URLS),
        st.integers(0, 40),
        st.binary(max_size=4),
    ),
)
TEXTS = st.one_of(
    # All of Unicode, surrogates too: JSON can carry a lone one.
    st.text(st.characters(codec=None, categories=None), max_size=300),
    URLS.map(os.fsdecode),
    st.builds(
        lambda known, more: known + more,
        st.sampled_from([vector.path for vector in VECTORS]),
        st.text(max_size=4),
    ),
)


class FuzzTests(SynchronousTestCase):
    """`RelPath` against whatever a peer sends."""

    def check(self, path: RelPath) -> None:
        """A path holds names only, within its limits, and its URL leads back to it."""
        for name in path.parts:
            self.assertNotIn(name, ("", ".", ".."))
            self.assertNotIn("/", name)
            self.assertNotIn("\0", name)
            self.assertLessEqual(len(os.fsencode(name)), MAX_NAME)
        self.assertLessEqual(len(path.parts), MAX_DEPTH)
        self.assertLessEqual(len(os.fsencode("/".join(path.parts))), MAX_PATH)
        self.assertEqual(RelPath.from_url(path.url().encode("ascii")), path)
        self.assertEqual(RelPath.parse(str(path)), path)

    @fuzz
    @given(URLS)
    @example(b"/" + b"%61" * 255)
    def test_from_url(self, url: bytes) -> None:
        """Bytes of a request line become a path or a `FileNameError`, nothing else."""
        try:
            path = RelPath.from_url(url)
        except FileNameError:
            return
        self.check(path)

    @fuzz
    @given(TEXTS)
    @example("\udcc3\udca9")
    def test_parse(self, text: str) -> None:
        """Text of a query or a message becomes a path or a `FileNameError`, nothing else."""
        try:
            path = RelPath.parse(text)
        except FileNameError:
            return
        self.check(path)

    def test_known_urls(self) -> None:
        """So do the known hostile ones, whole and cut at every byte."""
        for url in RAW_URLS:
            for end in range(len(url) + 1):
                try:
                    self.check(RelPath.from_url(url[:end]))
                except FileNameError:
                    continue

    def test_known_texts(self) -> None:
        """And the hostile paths of the table."""
        for vector in VECTORS:
            try:
                self.check(RelPath.parse(vector.path))
            except FileNameError:
                continue
