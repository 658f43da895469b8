"""What all of our own pages share: their policies, the page of an error, static files, addresses."""

from __future__ import annotations

import re
import struct
from hashlib import sha256

from twisted.trial.unittest import SynchronousTestCase

from fileexport.paths import RelPath
from fileexport.web.pages import PAGE_POLICY, STATIC, Addresses, error_page, scripted_policy, static_file
from tests.page_reader import OWN_NAMES, ROOT, Page


class Errors(SynchronousTestCase):
    """The page of an error."""

    def test_it_leads_to_the_root(self) -> None:
        """An error page names the status, says one sentence, and leads to the root."""
        page = Page(error_page(404, "there is no such file <or> directory\n", prefix="/x"))
        self.assertIn("404 Not Found", page.text)
        self.assertIn("there is no such file <or> directory␊", page.text)
        self.assertEqual(page.link("Go to the root"), "/x/")

    def test_a_status_without_a_name(self) -> None:
        """A status that HTTP does not name has a page too."""
        self.assertIn("599 Error", Page(error_page(599, "\ud800")).text)


class Policies(SynchronousTestCase):
    """What a browser may do with our pages and with exported files."""

    def test_our_own_pages(self) -> None:
        """Our pages load only our own style and images, cannot be framed, and send no referrer elsewhere."""
        policy = dict(PAGE_POLICY)
        directives = policy[b"Content-Security-Policy"].split(b"; ")
        for directive in (
            b"default-src 'none'",
            b"style-src 'self'",
            b"img-src 'self'",
            b"form-action 'self'",
        ):
            self.assertIn(directive, directives)
        self.assertIn(b"base-uri 'none'", directives)
        self.assertIn(b"frame-ancestors 'none'", directives)
        self.assertEqual(policy[b"Referrer-Policy"], b"same-origin")

    def test_pages_with_a_script(self) -> None:
        """A page's script runs by its nonce alone; nothing comes from elsewhere."""
        policy = dict(scripted_policy("N0nce"))
        directives = policy[b"Content-Security-Policy"].decode("ascii").split("; ")
        self.assertEqual(
            directives,
            [
                "default-src 'none'",
                "script-src 'nonce-N0nce'",
                "style-src 'self'",
                "img-src 'self'",
                "media-src 'self'",
                "frame-src 'self'",
                "connect-src 'self'",
                "form-action 'self'",
                "base-uri 'none'",
                "frame-ancestors 'none'",
                "require-trusted-types-for 'script'",
            ],
        )
        self.assertEqual(policy[b"Referrer-Policy"], b"same-origin")


class AddressesTests(SynchronousTestCase):
    """How paths become addresses."""

    def test_root(self) -> None:
        """The root is a slash behind the prefix, with and without a share's base."""
        self.assertEqual(Addresses("/x", OWN_NAMES).directory(ROOT), "/x/")
        top = RelPath(("a", "b"))
        shared = Addresses("/x", OWN_NAMES, "/-/share/KEY", top)
        self.assertEqual(
            (shared.directory(top), shared.entry(top / "list")), ("/x/-/share/KEY/", "/x/-/share/KEY/list")
        )

    def test_own_names(self) -> None:
        """What is called like a route of ours goes through the files route, but only in the root."""
        addresses = Addresses("/x", OWN_NAMES)
        self.assertEqual(addresses.directory(RelPath(("list", "b"))), "/x/-/files/list/b/")
        self.assertEqual(addresses.entry(RelPath(("b", "list"))), "/x/b/list")


class StaticFiles(SynchronousTestCase):
    """Our own files for the pages."""

    NEEDED = frozenset(
        {"style.css", "directory.css", "page.css", "page.js", "icon.svg", "icons.svg", "favicon.ico"}
    )

    def test_each_is_whole_and_tagged(self) -> None:
        """Each static file has its type, its bytes and a strong tag made from them."""
        self.assertEqual(self.NEEDED - set(STATIC), set())
        self.assertEqual(len(STATIC), len(set(STATIC)))
        for name, file in STATIC.items():
            digest = sha256(file.data).hexdigest().encode("ascii")
            self.assertTrue(file.data, name)
            self.assertRegex(file.etag, rb'\A"[0-9a-f]{32}"\Z')
            self.assertTrue(digest.startswith(file.etag.strip(b'"')))
        self.assertEqual(STATIC["style.css"].content_type, b"text/css; charset=utf-8")
        self.assertEqual(STATIC["page.js"].content_type, b"text/javascript; charset=utf-8")

    def test_nothing_else_is_reachable(self) -> None:
        """A name that is none of ours is no static file, however it is spelled."""
        for name in (
            "",
            ".",
            "..",
            "../pages.py",
            "style.css/",
            "/etc/passwd",
            "STYLE.CSS",
            "a/b/style.css",
            "../style.css",
        ):
            self.assertNotIn(name, STATIC)
            self.assertRaises(KeyError, STATIC.__getitem__, name)
            self.assertIsNone(static_file(name), name)

    def test_versions(self) -> None:
        """An address with our version is kept for good; any other is asked for again."""
        page = error_page(404, "x").decode("utf-8")
        (version,) = set(re.findall(r"/-/static/([0-9a-f]{12})/", page))
        for path, kept in (
            (f"{version}/style.css", "public, max-age=31536000, immutable"),
            ("style.css", "no-cache"),
            ("0123456789ab/style.css", "no-cache"),
        ):
            found = static_file(path)
            assert found is not None
            file, headers = found
            self.assertEqual(file, STATIC["style.css"])
            self.assertEqual(dict(headers)[b"Cache-Control"], kept.encode("ascii"))
            self.assertIn(PAGE_POLICY[0], headers)

    def test_the_icon_is_a_real_one(self) -> None:
        """The icon holds PNG images of 16, 32 and 48 pixels, each where its entry says."""
        data = STATIC["favicon.ico"].data
        self.assertEqual(struct.unpack_from("<HHH", data), (0, 1, 3))
        sizes = []
        for index in range(3):
            width, _, _, _, _, _, length, offset = struct.unpack_from("<BBBBHHII", data, 6 + 16 * index)
            image = data[offset : offset + length]
            self.assertEqual((image[:8], len(image)), (b"\x89PNG\r\n\x1a\n", length))
            self.assertEqual(struct.unpack_from(">II", image, 16), (width, width))
            sizes.append(width)
        self.assertEqual(sizes, [16, 32, 48])

    def test_our_files_load_nothing(self) -> None:
        """Style sheets and pictures hold no script, and load nothing but the picture with the icons."""
        for name in ("style.css", "directory.css", "icon.svg", "icons.svg"):
            text = STATIC[name].data.replace(b'url("icons.svg")', b"")
            for word in (b"url(", b"@import", b"<script", b"href", b"style="):
                self.assertNotIn(word, text, name)

    def test_icons_are_where_the_style_sheet_looks(self) -> None:
        """Each kind's number is the place of its icon, from the top."""
        places = re.findall(
            rb'<g id="([a-z]+)" transform="translate\(0 ([0-9]+)\)">', STATIC["icons.svg"].data
        )
        kinds = re.findall(rb'\[data-kind="([a-z]+)"\] \{ --icon: ([0-9]+); \}', STATIC["directory.css"].data)
        self.assertEqual(
            [(kind, int(place) // 24) for kind, place in places], [(k, int(n)) for k, n in kinds]
        )
        self.assertGreater(len(kinds), 20)
