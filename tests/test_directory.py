"""A directory as programs get it, and what both of its pages are made of: order, names, sizes, kinds."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from fileexport.errors import FileNameError
from fileexport.paths import MAX_DEPTH, MAX_NAME, RelPath
from fileexport.web.directory import (
    Row,
    View,
    chosen_of,
    folded,
    human_size,
    kind_of,
    listing_page,
    natural_key,
    ordered,
)
from fileexport.web.names import visible
from fileexport.web.pages import Addresses, url_of
from tests.odd_names import ODD_NAMES
from tests.page_reader import OWN_NAMES, ROOT, follow, row, shown


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
        text = listing_page(RelPath(ODD_NAMES[5:9]), rows, Addresses()).decode("utf-8")
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
        page = listing_page(ROOT, [row("צ", "directory")], Addresses()).decode("utf-8")
        self.assertIn("<bdi>צ</bdi>/</a>", page)


class Directories(SynchronousTestCase):
    """What a directory page tells its reader."""

    def test_directories_come_first(self) -> None:
        """Directories stand before everything else, and each group is in natural order."""
        rows = [row("B"), row("z", "directory"), row("a", "link"), row("b2"), row("y", "directory")]
        self.assertEqual([text for _, text in shown(ROOT, rows).links[1:]], ["y/", "z/", "a", "B", "b2"])

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
        for name in ("style.css", "icon.svg"):
            (link,) = [value for _, value in page.attributes if value.endswith(name)]
            self.assertRegex(link, rf"\A/-/static/[0-9a-f]{{12}}/{name}\Z")


def names(rows: list[Row]) -> list[str]:
    return [found.name for found in rows]


class Orders(SynchronousTestCase):
    """In which order entries stand, and which of them a filter leaves."""

    ROWS = (
        row("file10", size=1, mtime=3.0),
        row("dir2", "directory", mtime=1.0),
        row("File2", size=30, mtime=1.0),
        row("dir10", "directory", mtime=5.0),
        row("file1", size=20, mtime=2.0),
        row("Äpfel 3", size=1, mtime=9.0),
    )

    def test_natural(self) -> None:
        """Numbers count by their value and letters whatever their case; folders come first."""
        expected = ["dir2", "dir10", "file1", "File2", "file10", "Äpfel 3"]
        self.assertEqual(names(ordered(self.ROWS)), expected)

    def test_downwards(self) -> None:
        """Turned round, folders still come first."""
        expected = ["dir10", "dir2", "Äpfel 3", "file10", "File2", "file1"]
        self.assertEqual(names(ordered(self.ROWS, "name", "desc")), expected)

    def test_by_size(self) -> None:
        """Files are ordered by size, then in natural order; folders, which have none, by name."""
        up = ["dir2", "dir10", "file10", "Äpfel 3", "file1", "File2"]
        self.assertEqual(names(ordered(self.ROWS, "size")), up)
        down = ["dir2", "dir10", "File2", "file1", "file10", "Äpfel 3"]
        self.assertEqual(names(ordered(self.ROWS, "size", "desc")), down)

    def test_by_time(self) -> None:
        """Folders and files are ordered by time, each group for itself."""
        down = ["dir10", "dir2", "Äpfel 3", "file10", "file1", "File2"]
        self.assertEqual(names(ordered(self.ROWS, "mtime", "desc")), down)

    def test_numbers(self) -> None:
        """A number counts by its value, however many zeros it has, and comes before any other text."""
        expected = "1,2,010,a,a1,a 1,a 02b,a 2c,a 10,a 999999999999999999999,a b,a٣,b,z²".split(",")
        for order in (expected, expected[::-1], sorted(expected)):
            self.assertEqual(sorted(order, key=natural_key), expected)
        self.assertEqual(natural_key("A01"), natural_key("a1"))
        self.assertEqual(sorted(("9" * MAX_NAME, "10"), key=natural_key), ["10", "9" * MAX_NAME])

    def test_names_that_are_alike(self) -> None:
        """Names that differ only in case and zeros stand together, in the order in which they came."""
        rows = [row("A1"), row("b"), row("a01"), row("a1")]
        self.assertEqual(names(ordered(rows)), ["A1", "a01", "a1", "b"])
        self.assertEqual(len(ordered([row(name) for name in ODD_NAMES])), len(ODD_NAMES))

    def test_filter(self) -> None:
        """A filter finds a part of the label, whatever the case and however an accent is spelled."""
        for text, found in (
            ("FILE1", ["file1", "file10"]),
            ("äPF", ["Äpfel 3"]),
            ("A\u0308pfel", ["Äpfel 3"]),
            ("2", ["dir2", "File2"]),
            ("", names(ordered(self.ROWS))),
            ("nothing", []),
        ):
            self.assertEqual(names(chosen_of(self.ROWS, View(filter=text))), found, text)
        self.assertEqual(folded("STRASSE"), folded("straße"))

    def test_filter_of_what_is_seen(self) -> None:
        """What a reader sees of a name is what is searched, also where it is not UTF-8."""
        rows = [row("caf\udce9"), row("two\nlines")]
        self.assertEqual(names(chosen_of(rows, View(filter="\ufffd"))), ["caf\udce9"])
        self.assertEqual(names(chosen_of(rows, View(filter="␊"))), ["two\nlines"])


class Views(SynchronousTestCase):
    """What of a directory is looked at, as a query."""

    def test_queries(self) -> None:
        """A query names what is not as it is unasked, and is empty for that."""
        for view, query in (
            (View(), ""),
            (View(order="desc"), "?order=desc"),
            (View("size"), "?sort=size&order=asc"),
            (View(filter="a b&c"), "?filter=a+b%26c"),
            (View(filter="\udce9", page=3), "?filter=%E9&page=3"),
        ):
            self.assertEqual(view.query(), query)


class Kinds(SynchronousTestCase):
    """What is shown before a name."""

    def test_by_name(self) -> None:
        """A file's kind is that of the type it is served as; a preview shows only what is passive."""
        for name, kind in (
            ("a.JPG", "image"),
            ("a.flac", "audio"),
            ("a.mp4", "video"),
            ("a.pdf", "pdf"),
            ("a.py", "text"),
            ("a.json", "text"),
            ("README", "text"),
            ("a.html", "document"),
            ("a.xml", "document"),
            ("a.odt", "document"),
            ("a.tar.gz", "archive"),
            ("a.zip", "archive"),
            ("a.bin", "other"),
            ("a.ttf", "other"),
        ):
            self.assertEqual(kind_of(row(name)), kind, name)

    def test_what_is_no_file(self) -> None:
        """A folder, a link and whatever else there is are no files, whatever they are called."""
        for kind, word in (("directory", "folder"), ("link", "link"), ("other", "other")):
            self.assertEqual(kind_of(row("a.jpg", kind)), word)


class Sizes(SynchronousTestCase):
    """Sizes in words."""

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
