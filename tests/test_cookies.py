"""Cookies: ours found among others, and the fields that set and clear it."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from fileexport.web.cookies import Cookie, cookie_value

NAME = "fileexport-0badcafe"


class FindingTests(SynchronousTestCase):
    """What a client sends."""

    def test_found(self) -> None:
        """Ours is found among others, on any line, with any white space about it."""
        for lines in (
            [b"fileexport-0badcafe=abc"],
            [b"a=b; fileexport-0badcafe=abc; c=d"],
            [b"a=b;fileexport-0badcafe=abc"],
            [b"a=b", b"fileexport-0badcafe=abc"],
            [b" fileexport-0badcafe=abc ;"],
            [b"x=\xff; broken; =; fileexport-0badcafe=abc"],
        ):
            self.assertEqual(cookie_value(lines, NAME), "abc", lines)

    def test_first_of_its_name_counts(self) -> None:
        """One that a neighbour set for less of the path stands behind ours, and is not looked at."""
        self.assertEqual(cookie_value([b"fileexport-0badcafe=abc; fileexport-0badcafe=x"], NAME), "abc")

    def test_not_ours(self) -> None:
        """Another name, another daemon's, and a value that we never set are none of ours."""
        for line in (
            b"",
            b"fileexport-0badcafe",
            b"fileexport-0badcafe=",
            b"fileexport-0badcaff=abc",
            b"xfileexport-0badcafe=abc",
            b"FileExport-0badcafe=abc",
            b'fileexport-0badcafe="abc"',
            b"fileexport-0badcafe=a b",
            b"fileexport-0badcafe=a=b",
            b"fileexport-0badcafe=\xc3\xa4",
            b"fileexport-0badcafe=" + b"a" * 129,
        ):
            self.assertIsNone(cookie_value([line], NAME), line)
        self.assertIsNone(cookie_value([], NAME))


class SettingTests(SynchronousTestCase):
    """What we send."""

    def test_fields(self) -> None:
        """No script reads it, no other site's request carries it, and under TLS it never goes in clear."""
        plain, secure = Cookie(NAME, "/", False), Cookie(NAME, "/files/", True)
        self.assertEqual(
            plain.set("abc", 60), b"fileexport-0badcafe=abc; Path=/; Max-Age=60; HttpOnly; SameSite=Strict"
        )
        self.assertEqual(
            secure.set("abc", 60),
            b"fileexport-0badcafe=abc; Path=/files/; Max-Age=60; HttpOnly; SameSite=Strict; Secure",
        )
        self.assertEqual(
            secure.clear(),
            b"fileexport-0badcafe=; Path=/files/; Max-Age=0; HttpOnly; SameSite=Strict; Secure",
        )
