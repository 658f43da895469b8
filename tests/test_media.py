"""What a file is to a browser: types, sandboxes, and names in headers."""

from __future__ import annotations

import os
from urllib.parse import unquote_to_bytes

from twisted.trial.unittest import SynchronousTestCase

from fileexport.web.media import PASSIVE_POLICY, SANDBOX_POLICY, inline_headers
from fileexport.web.names import attachment
from tests.odd_names import ODD_NAMES


class Policies(SynchronousTestCase):
    """What a browser may do with exported files."""

    def test_what_a_browser_could_run_is_sandboxed(self) -> None:
        """Active and unknown content gets a sandbox without scripts, whatever the case of its suffix."""
        for name in (
            *("a.html", "a.HTM", "a.xhtml", "a.xht", "a.shtml", "a.svg", "a.SVG", "a.xml", "a.xsl", "a.xslt"),
            *("a.rss", "a.atom", "a.mht", "a.mhtml", "a.wasm", "a.swf", "a.unknown", "noextension", "a."),
            *("a.txt ", "a.html\n", "a.png\u202e", "a.p\udcffng", "a.tar.gz", "a.svgz", ".html", "list"),
        ):
            policy = inline_headers(name)[2]
            self.assertEqual(policy, SANDBOX_POLICY, name)
        sandbox = dict(SANDBOX_POLICY)
        self.assertIn(b"sandbox;", sandbox[b"Content-Security-Policy"])
        self.assertNotIn(b"allow-", sandbox[b"Content-Security-Policy"])
        self.assertIn(b"default-src 'none'", sandbox[b"Content-Security-Policy"])

    def test_what_is_only_looked_at(self) -> None:
        """Images, media, text, JSON and PDF go without a sandbox, so that the browser's own viewers work."""
        for name in (
            "a.png",
            "a.jpeg",
            "a.mp4",
            "a.webm",
            "a.flac",
            "a.txt",
            "a.json",
            "a.pdf",
            "a.js",
            "a.css",
        ):
            self.assertEqual(inline_headers(name)[2], PASSIVE_POLICY, name)


class Types(SynchronousTestCase):
    """The type of a file by its name."""

    def test_types(self) -> None:
        """Text and source are shown as text, media by their types, compressed files as what they are."""
        text = b"text/plain; charset=utf-8"
        for name, expected in (
            *(
                (n, text)
                for n in ("a.txt", "db-dump.sql", "a.log", "a.csv", "a.md", "a.toml", "a.yaml", "a.py")
            ),
            *((n, text) for n in ("a.js", "a.css", "a.c", "a.sh", ".gitignore", ".env", "A.TXT")),
            *((n, text) for n in ("README", "LICENSE", "Makefile", "CHANGELOG", "Dockerfile")),
            ("a.json", b"application/json"),
            ("a.html", b"text/html"),
            ("a.xhtml", b"application/xhtml+xml"),
            ("a.svg", b"image/svg+xml"),
            ("a.pdf", b"application/pdf"),
            ("a.png", b"image/png"),
            ("a.JPG", b"image/jpeg"),
            ("a.webp", b"image/webp"),
            ("a.avif", b"image/avif"),
            ("a.mp4", b"video/mp4"),
            ("a.webm", b"video/webm"),
            ("a.mkv", b"video/x-matroska"),
            ("a.mp3", b"audio/mpeg"),
            ("a.flac", b"audio/flac"),
            ("a.ogg", b"audio/ogg"),
            ("a.tar.gz", b"application/gzip"),
            ("a.sql.zst", b"application/zstd"),
            ("a.html.gz", b"application/gzip"),
            ("a.zip", b"application/zip"),
            *(
                (n, b"application/octet-stream")
                for n in ("binary", "a.xyz", "html", "txt", "a.txt.", "caf\udce9")
            ),
        ):
            self.assertEqual(inline_headers(name)[0], expected, name)

    def test_inline(self) -> None:
        """A file of a path is shown in the browser, and keeps its name when it is saved."""
        self.assertEqual(inline_headers("a b.png")[1], b'inline; filename="a b.png"')


class Attachments(SynchronousTestCase):
    """The Content-Disposition of a download."""

    def test_it_is_one_line_of_ascii(self) -> None:
        """Whatever the name, the value is one line of printable ASCII whose quotes are its own two."""
        for name in (*ODD_NAMES, "\ud800", ""):
            for value in (attachment(name), inline_headers(name)[1]):
                self.assertTrue(all(0x20 <= byte < 0x7F for byte in value), value)
                self.assertEqual(value.count(b'"'), 2)
                self.assertNotIn(b"\\", value)
            self.assertTrue(attachment(name).startswith(b'attachment; filename="'))

    def test_names_of_every_language(self) -> None:
        """A name that is no plain ASCII comes in the extended form too, and decodes to the name."""
        for name in ("été 2026", "日本語", 'dou"ble', "100%", "a'b", "👩‍👩‍👧.png", "a;b=c*", "צילומים"):
            value = attachment(name)
            if b"filename*=" in value:
                value = unquote_to_bytes(value.partition(b"filename*=UTF-8''")[2])
                self.assertEqual(value, os.fsencode(name))
            else:
                self.assertEqual(value, b'attachment; filename="' + os.fsencode(name) + b'"')

    def test_literal_values(self) -> None:
        """A plain name is only quoted; others have a fallback and an extended form."""
        self.assertEqual(attachment("db-dump.sql"), b'attachment; filename="db-dump.sql"')
        self.assertEqual(attachment("é.txt"), b"attachment; filename=\"_.txt\"; filename*=UTF-8''%C3%A9.txt")

    def test_what_a_client_must_not_save(self) -> None:
        """Slashes, controls, reordering characters and broken bytes never reach the client's disk."""
        for name in ("../x", "..\\x", "a\nb", "a\x00b", "a\u202eb", "a\udcffb"):
            saved = unquote_to_bytes(attachment(name)).decode("ascii")
            self.assertNotRegex(saved.partition("filename=")[2], r"[/\\\n\x00]")
            self.assertIn("_", saved)
