"""Paths inside the root, and what a valid file name is."""

from __future__ import annotations

import os

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fileexport.errors import FileNameError
from fileexport.paths import (
    MAX_DEPTH,
    MAX_NAME,
    MAX_PATH,
    RESERVED,
    RelPath,
    is_file_name_valid,
    printable,
    quote_name,
)

#: Every name that a POSIX file system can hold.
NAMES = (
    st.binary(min_size=1, max_size=40)
    .map(lambda raw: os.fsdecode(raw.replace(b"/", b"-").replace(b"\0", b"-")))
    .filter(lambda name: name not in (".", ".."))
)
PATHS = st.lists(NAMES, max_size=8).map(RelPath)


class RelPathTests(SynchronousTestCase):
    """`RelPath` as a value."""

    def test_spellings(self) -> None:
        """Slashes before, after and between names do not matter, and the root has three spellings."""
        for text, parts in (
            *(("", ()), (".", ()), ("/", ()), ("//", ()), ("a", ("a",)), ("/a", ("a",)), ("a/", ("a",))),
            *(("/a/b/", ("a", "b")), ("a//b", ("a", "b")), ("...", ("...",)), (" ", (" ",)), ("~", ("~",))),
            *(("a\\b", ("a\\b",)), (".a", (".a",)), ("%2e%2e", ("%2e%2e",)), ("new\nline", ("new\nline",))),
        ):
            self.assertEqual(RelPath.parse(text).parts, parts, text)

    def test_no_name(self) -> None:
        """Dots that mean a directory, an empty name, a slash and a NUL are refused wherever they stand."""
        for name in (".", "..", "", "a/b", "/", "a\0", "\0", "..\0"):
            for parts in ((name,), (name, "a"), ("a", name), ("a", name, "b")):
                self.assertRaises(FileNameError, RelPath, parts)
        for text in ("..", "a/..", "../a", "a/../b", "/..", "./a", "a/.", "a/./b", "a\0", "//../", "a/..//"):
            self.assertRaises(FileNameError, RelPath.parse, text)

    def test_no_byte(self) -> None:
        """A surrogate that stands for no byte, or bytes spelled in two ways, are refused."""
        for name in ("\ud800", "\udc2e\udc2e", "\udfff", "\udc7f", "\udcc3\udca9", "a\udce2\udc82\udcac"):
            self.assertRaises(FileNameError, RelPath, (name,))

    def test_longest(self) -> None:
        """A name has up to 255 bytes, a path up to 4,096 and 64 names; one more of each is refused."""
        for name in ("n" * MAX_NAME, "\u00e9" * 127 + "n", "\U0001f4c4" * 63 + "nnn", "\udcff" * MAX_NAME):
            self.assertEqual(len(os.fsencode(name)), MAX_NAME)
            self.assertEqual(RelPath((name,)).parts, (name,))
            self.assertRaises(FileNameError, RelPath, (name + "n",))
        deepest = RelPath("d" * MAX_DEPTH)
        self.assertRaises(FileNameError, deepest.__truediv__, "d")
        self.assertRaises(FileNameError, deepest.__add__, RelPath("d"))
        longest = RelPath(["n" * MAX_NAME] * 16)
        self.assertEqual(len(os.fsencode("/".join(longest))), MAX_PATH - 1)
        self.assertRaises(FileNameError, longest.__truediv__, "n")
        self.assertRaises(FileNameError, RelPath, ["\u00e9" * 127] * 17)

    def test_name_by_name(self) -> None:
        """A long path, or one that is not ASCII, takes and refuses the same names as a short plain one."""
        for other in ("n" * MAX_NAME, "\u00e9"):
            self.assertEqual(RelPath((other, "a.b", "...")).parts, (other, "a.b", "..."))
            for name in (".", "..", "", "a/b", "/", "a\0"):
                for parts in ((other, name), (name, other)):
                    self.assertRaises(FileNameError, RelPath, parts)

    def test_immutable(self) -> None:
        """A path does not change, and equal paths are one key."""
        path = RelPath(("a", "b"))
        self.assertRaises(AttributeError, setattr, path, "parts", ("..",))
        self.assertRaises(AttributeError, setattr, path, "other", 1)
        self.assertEqual({path: 1}[RelPath.parse("/a/b/")], 1)
        self.assertNotEqual(path, ("a", "b"))

    def test_order(self) -> None:
        """Paths are ordered by names, not by the text that joins them."""
        paths = [RelPath.parse(text) for text in ("/", "a", "a/b", "a/b/c", "a-b", "b")]
        self.assertEqual(sorted(reversed(paths)), paths)

    def test_parts(self) -> None:
        """The last name and what lies above it; the root is its own parent and false."""
        path = RelPath.parse("a/b/c")
        self.assertEqual((path.name, path.parent, list(path)), ("c", RelPath.parse("a/b"), ["a", "b", "c"]))
        root = RelPath()
        self.assertEqual((root.name, root.parent, bool(root), bool(path)), ("", root, False, True))

    def test_text(self) -> None:
        """A path for people begins with a slash."""
        self.assertEqual((str(RelPath()), str(RelPath.parse("a/b"))), ("/", "/a/b"))
        self.assertEqual(repr(RelPath.parse("a/b")), "RelPath('/a/b')")

    def test_beneath(self) -> None:
        """A path is beneath another by whole names; a neighbour with the same beginning is not."""
        base = RelPath.parse("a/b")
        for text, rest in (("a/b", "/"), ("a/b/c", "/c"), ("a/b/c/d", "/c/d")):
            self.assertEqual(RelPath.parse(text).beneath(base), RelPath.parse(rest))
        for text in ("", "a", "a/bc", "a/b c/d", "ab", "a/c", "b", "A/B", "x/a/b"):
            self.assertIsNone(RelPath.parse(text).beneath(base), text)
        self.assertEqual(base.beneath(RelPath()), base)

    @given(PATHS, PATHS)
    def test_holds(self, base: RelPath, path: RelPath) -> None:
        """A path holds itself and all that is beneath it, and nothing else."""
        self.assertTrue(base.holds(base + path))
        self.assertEqual(base.holds(path), path.beneath(base) is not None)

    @given(PATHS, PATHS)
    def test_beneath_undoes_joining(self, base: RelPath, rest: RelPath) -> None:
        """What is joined to a base is beneath it, as the same path."""
        self.assertEqual((base + rest).beneath(base), rest)

    def test_reserved(self) -> None:
        """A path is reserved when one of its names is ours."""
        for text in (RESERVED, f"a/{RESERVED}", f"{RESERVED}/b"):
            self.assertTrue(RelPath.parse(text).is_reserved, text)
        for text in ("", f"{RESERVED}s", RESERVED.upper(), f"a{RESERVED}", f"{RESERVED} "):
            self.assertFalse(RelPath.parse(text).is_reserved, text)


class UrlTests(SynchronousTestCase):
    """Paths as they stand in a URL."""

    def test_decoded_after_splitting(self) -> None:
        """An encoded slash never separates: it is refused as part of a name."""
        for path in (b"/a%2fb", b"/%2F", b"/..%2f", b"/a/b%2Fc"):
            self.assertRaises(FileNameError, RelPath.from_url, path)

    def test_encoded_dots(self) -> None:
        """Dots that mean a directory are refused however they are encoded, NUL too."""
        for path in (
            b"/..",
            b"/%2e%2e",
            b"/.%2E",
            b"/a/%2e./b",
            b"/.",
            b"/%2e",
            b"/a/./b",
            b"/a%00",
            b"/%00",
        ):
            self.assertRaises(FileNameError, RelPath.from_url, path)

    def test_decoded_once(self) -> None:
        """One layer of percent-encoding goes; a plus, a stray percent and what looks like more stay."""
        for path, parts in (
            *(
                (b"/%252e%252e", ("%2e%2e",)),
                (b"/a+b", ("a+b",)),
                (b"/%zz%", ("%zz%",)),
                (b"//a///b/", ("a", "b")),
            ),
            *((b"", ()), (b"/", ()), (b"a", ("a",)), (b"/%C3%A9", ("\u00e9",)), (b"/\xc3\xa9", ("\u00e9",))),
            *(
                (b"/%ff", ("\udcff",)),
                (b"/%c0%ae%c0%ae", ("\udcc0\udcae\udcc0\udcae",)),
                (b"/a%20b", ("a b",)),
            ),
        ):
            self.assertEqual(RelPath.from_url(path).parts, parts, path)

    def test_only_unreserved_characters_stay(self) -> None:
        """A URL spells letters, digits and ``-._~`` as they are and the rest as bytes (RFC 3986, 2.3)."""
        self.assertEqual(quote_name("aZ09-._~"), "aZ09-._~")
        self.assertEqual(quote_name("a b/%?#\u00e9\udcff"), "a%20b%2F%25%3F%23%C3%A9%FF")
        self.assertEqual((RelPath().url(), RelPath.parse("a b/c").url()), ("/", "/a%20b/c"))

    @given(PATHS)
    def test_round_trip(self, path: RelPath) -> None:
        """A URL and the text of a path lead back to the path."""
        self.assertEqual(RelPath.from_url(path.url().encode("ascii")), path)
        self.assertEqual(RelPath.parse(str(path)), path)


class NameTests(SynchronousTestCase):
    """Names that may be created, and names for people."""

    def test_portable(self) -> None:
        """The portable rule takes UTF-8 of 1 to 255 bytes without its dozen of characters and controls."""
        for name in (
            "a",
            "...",
            ".env",
            " ",
            "\u00e9",
            "a\u00a0b",
            "\u2028",
            "n" * 255,
            "\u00e9" * 127,
            "CON",
        ):
            self.assertTrue(is_file_name_valid(name), name)
        bad = [f"a{character}b" for character in "<>:/\\|?*\0\n\t\x1f\x7f\x80\x9f\x85\udcff\ud800"]
        for name in ("", ".", "..", "n" * 256, "\u00e9" * 128, *bad):
            self.assertFalse(is_file_name_valid(name), name)

    @given(st.text(max_size=300))
    def test_portable_names_are_names(self, name: str) -> None:
        """What may be created on every system is a path of one name here."""
        if is_file_name_valid(name):
            self.assertEqual(RelPath((name,)).parts, (name,))

    @given(NAMES)
    def test_printable(self, name: str) -> None:
        """A name for people is the name where it is UTF-8, and can always be encoded."""
        shown = printable(name)
        shown.encode("utf-8")
        self.assertTrue(shown == name or ("\ufffd" in shown and not is_file_name_valid(name)))
