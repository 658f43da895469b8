"""Pages for browsers: every name a link, nothing a file can run on this origin."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from hashlib import sha256
from html.parser import HTMLParser
from urllib.parse import urljoin, urlsplit

from twisted.trial.unittest import SynchronousTestCase

from fileexport.errors import FileNameError
from fileexport.paths import MAX_DEPTH, MAX_NAME, RelPath
from fileexport.web.names import visible
from fileexport.web.pages import (
    FILES_ROUTE,
    PAGE_POLICY,
    STATIC,
    Row,
    directory_page,
    error_page,
    human_size,
    url_of,
)
from tests.odd_names import ODD_NAMES

OWN_NAMES = frozenset({"list", "get", "tar", "delete", "stop", "favicon.ico", "-"})


class Page(HTMLParser):
    """A page as a browser sees it: elements in order, and each link with its text."""

    def __init__(self, page: bytes) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.links: list[tuple[str, str]] = []
        self.rows: list[str] = []
        self.text = ""
        self._href: str | None = None
        self._start = self._start_of_row = 0
        self.feed(page.decode("utf-8"))
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag == "a":
            self._href, self._start = dict(attrs)["href"], len(self.text)
        if tag == "tr":
            self._start_of_row = len(self.text)

    def handle_endtag(self, tag: str) -> None:
        if tag == "a" and self._href is not None:
            self.links.append((self._href, self.text[self._start :]))
        if tag == "tr":
            self.rows.append(self.text[self._start_of_row :])

    def handle_data(self, data: str) -> None:
        self.text += data

    def link(self, text: str) -> str:
        """The target of the only link with this text."""
        (found,) = [href for href, label in self.links if label == text]
        return found


def follow(href: str, prefix: str = "") -> RelPath:
    """The path that the daemon understands when a browser follows `href` from any page of it."""
    target = urlsplit(urljoin(f"http://server:9006{prefix}/some/page/", href))
    assert (target.netloc, target.query, target.fragment) == ("server:9006", "", ""), href
    path = target.path.removeprefix(prefix)
    return RelPath.from_url(path.removeprefix(FILES_ROUTE).encode("ascii"))


def row(name: str, kind: str = "file", size: int = 1, mtime: float = 0.0) -> Row:
    return Row(name, kind, size, mtime)


ROOT = RelPath()


def shown(where: RelPath, rows: Sequence[Row], *, prefix: str = "") -> Page:
    return Page(directory_page(where, rows, prefix=prefix, own_names=OWN_NAMES))


class HostileNames(SynchronousTestCase):
    """Every name that a file system can hold, in every place of a page where one can stand."""

    def test_a_file_link_leads_to_exactly_the_name(self) -> None:
        """Following the link of a file gives its name byte for byte, at the root and below it."""
        for where in (ROOT, RelPath(("a",)), RelPath(("-",)), RelPath(("ü %", "b"))):
            for name in ODD_NAMES:
                href, _ = shown(where, [row(name)]).links[-1]
                self.assertEqual(follow(href), where / name)

    def test_a_directory_link_ends_with_a_slash(self) -> None:
        """The link of a directory leads to exactly its name, with a slash in the link and in its text."""
        for name in ODD_NAMES:
            href, text = shown(ROOT, [row(name, "directory")]).links[-1]
            self.assertEqual(follow(href), RelPath((name,)))
            self.assertTrue(href.endswith("/") and text.endswith("/"), href)

    def test_buttons_and_crumbs_inside_a_directory_of_any_name(self) -> None:
        """Below a hostile directory the parent's button and every crumb lead to exactly their directories."""
        for name in ODD_NAMES:
            page = shown(RelPath((name, "b", "c")), [])
            self.assertEqual(page.link("/"), "/")
            self.assertEqual(follow(page.link("..")), RelPath((name, "b")))
            crumbs = [follow(href) for href, _ in page.links[2:]]
            self.assertEqual(crumbs, [RelPath((name,)), RelPath((name, "b"))])

    def test_no_name_adds_markup(self) -> None:
        """A page has the same elements whatever its names are: a name is only text and an address."""
        plain = shown(RelPath(("d", "e")), [row("f")]).tags
        for name in ODD_NAMES:
            page = shown(RelPath((name, "e")), [row(name)])
            self.assertEqual(page.tags, plain, name)
            self.assertFalse([a for a, _ in page.attributes if a.startswith("on") or a == "style"], name)

    def test_a_prefix_is_part_of_every_link(self) -> None:
        """Behind a reverse proxy every link begins with its prefix, also the style sheet's."""
        page = shown(RelPath(("d", "e")), [row("f"), row("g", "directory")], prefix="/x/y&z")
        for name, value in page.attributes:
            if name == "href":
                self.assertTrue(value.startswith("/x/y&z/"), value)
        self.assertEqual(follow(page.link("f"), "/x/y&z"), RelPath(("d", "e", "f")))

    def test_own_routes_do_not_hide_entries(self) -> None:
        """Names of the daemon's own routes, and all below them, are reached through the files route."""
        rows = [row(name) for name in OWN_NAMES]
        for href, text in shown(ROOT, rows).links[1:]:
            self.assertEqual(href, f"/-/files/{text}")
        inside = shown(RelPath(("-",)), [row("x", "directory")])
        self.assertEqual(inside.link("x/"), "/-/files/-/x/")
        self.assertEqual(shown(RelPath(("d",)), [row("list")]).link("list"), "/d/list")

    def test_addresses_are_those_of_the_pages(self) -> None:
        """The address of an entry is the one that the page of its directory links to."""
        for where in (ROOT, RelPath(("list", "b"))):
            for name in ODD_NAMES:
                href, _ = shown(where, [row(name)], prefix="/x").links[-1]
                self.assertEqual(url_of(where / name, "/x", OWN_NAMES), href)
        self.assertEqual(url_of(ROOT, "/x", OWN_NAMES), "/x/")

    def test_the_page_is_clean_utf8(self) -> None:
        """A page is valid UTF-8 and holds no control but the newline, nor anything that reorders text."""
        rows = [row(name, kind) for name in ODD_NAMES for kind in ("file", "directory", "link", "other")]
        text = directory_page(RelPath(ODD_NAMES[5:9]), rows).decode("utf-8")
        for character in text.replace("\n", ""):
            self.assertFalse(character < " " or "\x7f" <= character <= "\x9f", repr(character))
            self.assertNotIn(character, "\u200b\u200e\u200f\u2028\u202a\u202e\u2066\u2069\ufeff")

    def test_what_cannot_be_seen_is_shown(self) -> None:
        """Controls become their pictures, reordering characters and broken bytes a mark, letters stay."""
        self.assertEqual(visible("a\nb\x7f"), "a␊b␡")
        self.assertEqual(visible("invoice\u202etxt.exe"), "invoice\ufffdtxt.exe")
        self.assertEqual(visible("caf\udce9"), "caf\ufffd")
        self.assertEqual(visible("\ud800"), "\ufffd")
        for name in ("plain", " a  b ", "été", "צילומים", "👩‍👩‍👧.png", "نامه\u200cها"):
            self.assertEqual(visible(name), name)

    def test_each_name_is_isolated(self) -> None:
        """A name in another direction of writing stands in an element of its own, apart from its slash."""
        page = directory_page(ROOT, [row("צ", "directory")]).decode("utf-8")
        self.assertIn("<bdi>צ</bdi>/</a>", page)


class Directories(SynchronousTestCase):
    """What a directory page tells its reader."""

    def test_directories_come_first(self) -> None:
        """Directories stand before everything else, and each group is ordered by name."""
        rows = [row("b"), row("z", "directory"), row("a", "link"), row("B"), row("y", "directory")]
        self.assertEqual([text for _, text in shown(ROOT, rows).links[1:]], ["y/", "z/", "B", "a", "b"])

    def test_the_root_has_no_parent(self) -> None:
        """The root's page has the button to the root and none to a parent."""
        self.assertEqual(shown(ROOT, []).links, [("/", "/")])

    def test_size_and_time(self) -> None:
        """A file's row has its size for people, its exact size as a hint, and its time in UTC."""
        page = shown(ROOT, [row("f", size=1536, mtime=1_700_000_000.9)])
        self.assertEqual(page.rows[1], "f1.5 KiB2023-11-14 22:13")
        self.assertIn(("title", "1,536 bytes"), page.attributes)

    def test_times_outside_the_calendar(self) -> None:
        """A time before 1970 is written as it is, one that no calendar holds as a dash."""
        for mtime, text in (
            (-1.0, "1969-12-31 23:59"),
            (-62135596800.0, "0001-01-01 00:00"),
            (-62135596801.0, "–"),
            (2.0**63, "–"),
            (float("nan"), "–"),
            (float("inf"), "–"),
        ):
            self.assertEqual(shown(ROOT, [row("f", mtime=mtime)]).rows[1], f"f1 B{text}")

    def test_sizes_for_people(self) -> None:
        """Sizes are written in binary units, and never as 1024 of one."""
        for size, text in (
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (2**20 - 1, "1.0 MiB"),
            (10 * 2**30, "10.0 GiB"),
            (2**63 - 1, "8.0 EiB"),
        ):
            self.assertEqual(human_size(size), text)

    def test_count_and_total(self) -> None:
        """The page counts all entries and adds up the sizes of files only."""
        rows = [row("a", size=2000), row("b", size=48), row("c", "directory", 4096), row("d", "link", 9)]
        page = shown(ROOT, rows)
        self.assertIn("4 entries, 2.0 KiB in files", page.text)
        self.assertIn(("title", "2,048 bytes"), page.attributes)
        self.assertIn("1 entry, 1 B in files", shown(ROOT, [row("a")]).text)

    def test_an_empty_directory_says_so(self) -> None:
        """A directory without entries has a sentence and no table."""
        page = shown(RelPath(("a",)), [])
        self.assertIn("This directory is empty.", page.text)
        self.assertNotIn("table", page.tags)

    def test_other_kinds_are_no_links(self) -> None:
        """A socket, a device or a dangling link is named, but nothing leads to it."""
        page = shown(ROOT, [row("socket", "other")])
        self.assertEqual(len(page.links), 1)
        self.assertTrue(page.rows[1].startswith("socket"))

    def test_nested_directories_of_the_root(self) -> None:
        """A row of the root may name a nested directory, whose link leads through all of its names."""
        rows = [row("a/b c/d", "directory"), row("list/x", "directory")]
        page = shown(ROOT, rows)
        self.assertEqual(page.link("a/b c/d/"), "/a/b%20c/d/")
        self.assertEqual(page.link("list/x/"), "/-/files/list/x/")

    def test_what_no_path_can_reach_is_no_link(self) -> None:
        """An entry below the deepest or longest path that a request may name is shown without a link."""
        deep = RelPath(["d"] * (MAX_DEPTH - 1))
        self.assertEqual(shown(deep, [row("f")]).links[-1][1], "f")
        self.assertRaises(FileNameError, RelPath, (*deep, "d", "f"))
        long = RelPath([*["x" * MAX_NAME] * 15, "x" * (MAX_NAME - 1)])
        self.assertEqual(follow(shown(long, [row("y")]).links[-1][0]), long / "y")
        self.assertRaises(FileNameError, long.__truediv__, "yy")
        for where, name in ((deep / "d", "f"), (long, "yy")):
            page = shown(where, [row(name), row(name, "directory")])
            self.assertNotIn(name, [text.rstrip("/") for _, text in page.links])
            self.assertIn(name, page.text)

    def test_reading_aloud(self) -> None:
        """The page names its language, has one heading, a labelled navigation, and headers with scopes."""
        page = shown(RelPath(("a",)), [row("f")])
        self.assertIn(("lang", "en"), page.attributes)
        self.assertEqual(page.tags.count("h1"), 1)
        self.assertIn(("aria-label", "Breadcrumb"), page.attributes)
        self.assertEqual([v for a, v in page.attributes if a == "scope"], ["col", "col", "col", "row"])

    def test_nothing_that_the_policy_forbids(self) -> None:
        """A page has no script, no inline style and no element that loads from elsewhere."""
        page = shown(RelPath(("a",)), [row("f")])
        self.assertFalse({"script", "style", "iframe", "img", "base", "object"} & set(page.tags))
        self.assertIn(("href", "/-/static/style.css"), page.attributes)
        self.assertIn(("href", "/-/static/icon.svg"), page.attributes)


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


class StaticFiles(SynchronousTestCase):
    """Our own files for the pages."""

    def test_each_is_whole_and_tagged(self) -> None:
        """Each static file has its type, its bytes and a strong tag made from them."""
        self.assertEqual(set(STATIC), {"style.css", "icon.svg", "favicon.ico"})
        self.assertEqual(len(STATIC), 3)
        for name, file in STATIC.items():
            digest = sha256(file.data).hexdigest().encode("ascii")
            self.assertTrue(file.data, name)
            self.assertRegex(file.etag, rb'\A"[0-9a-f]{32}"\Z')
            self.assertTrue(digest.startswith(file.etag.strip(b'"')))
        self.assertEqual(STATIC["style.css"].content_type, b"text/css; charset=utf-8")

    def test_nothing_else_is_reachable(self) -> None:
        """A name that is none of ours is no static file, however it is spelled."""
        for name in ("", ".", "..", "../pages.py", "style.css/", "/etc/passwd", "STYLE.CSS"):
            self.assertNotIn(name, STATIC)
            self.assertRaises(KeyError, STATIC.__getitem__, name)

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
        """The style sheet and the icon hold no script and fetch nothing."""
        for name in ("style.css", "icon.svg"):
            for word in (b"url(", b"@import", b"<script", b"href", b"style="):
                found = STATIC[name].data.replace(b'a[href$="/"]', b"")
                self.assertNotIn(word, found)
