"""The page of a directory for people: what they see of it, and what they may do there."""

from __future__ import annotations

from urllib.parse import parse_qsl, unquote_to_bytes, urlsplit

from twisted.trial.unittest import SynchronousTestCase

from fileexport.paths import RelPath, quote_name
from fileexport.shares import DEFAULT_TIME, MAX_TIME
from fileexport.tokens import Right
from fileexport.web.directory import PAGE_LENGTH, View, Visitor, directory_page
from fileexport.web.pages import Addresses
from tests.odd_names import ODD_NAMES
from tests.page_reader import ANYBODY, OWN_NAMES, ROOT, Page, follow, row, seen

READER = Visitor(Right.READ, "anna")
#: Every element that whoever makes the page livelier looks for.
IDS = (
    "page here summary filter upload-menu upload new-directory-menu new-directory share-menu share-directory "
    "download-menu status transfers entries listing select-all actions selected download-zip download-tar "
    "move-menu move rename-menu rename delete row dialog shares"
).split()
CHANGING = ("upload", "new-directory", "share-directory", "move", "rename", "delete", "shares")
#: A directory that is not the root, and an entry.
WHERE, ROWS = RelPath(("a b", "c")), [row("f.txt", size=12, mtime=1_795_273_794.769)]


class Contracts(SynchronousTestCase):
    """What the script and the style sheets look for."""

    def test_ids(self) -> None:
        """All elements are there that have an id, once each."""
        ids = seen(WHERE, ROWS).ids()
        self.assertEqual(set(IDS) - set(ids), set())
        self.assertEqual(len(ids), len(set(ids)))

    def test_what_the_script_is_told(self) -> None:
        """The main element says which directory this is, where things are asked for, and what is shown."""
        page = seen(WHERE, ROWS, addresses=Addresses("/x"), view=View("size", "desc", "F"))
        told = {name[5:]: value for name, value in page.by_id("page").items() if name.startswith("data-")}
        expected = {
            "prefix": "/x",
            "directory": "/a%20b/c/",
            "uploads": "/x/-/uploads?dir=/a%20b/c/",
            "jobs": "/x/-/jobs",
            "shares": "/x/-/shares",
            "may": "read write delete",
            "total": "1",
            "shown": "1",
            "sort": "size",
            "order": "desc",
            "filter": "F",
        }
        self.assertEqual(told, expected)

    def test_rows(self) -> None:
        """A row has its name as its address has it, its type, kind, bytes and time; its box the name, too."""
        page = seen(WHERE, [row("a b\udce9.txt", size=12, mtime=1_795_273_794.769)])
        (found,) = page.entries()
        expected = {
            "data-name": "a%20b%E9.txt",
            "data-type": "file",
            "data-kind": "text",
            "data-size": "12",
            "data-mtime": "1795273794.769",
        }
        self.assertEqual(found, expected)
        boxes = [a for tag, a in page.elements if tag == "input" and a.get("name") == "entry"]
        self.assertEqual([box["value"] for box in boxes], ["a%20b%E9.txt", ""])
        self.assertEqual(boxes[0]["aria-label"], "Select a b\ufffd.txt")
        self.assertIn(("title", "12 bytes"), page.attributes)
        self.assertIn(("datetime", "2026-11-21T15:09:54Z"), page.attributes)

    def test_a_pattern_for_rows(self) -> None:
        """The row that the script copies has the same elements as any other."""
        text = directory_page(WHERE, ROWS, Addresses(), visitor=ANYBODY, nonce="n").decode()
        body = text.partition("<tbody>")[2].partition("</tbody>")[0]
        pattern = text.partition('<template id="row">')[2].partition("</template>")[0]
        tags = [[tag for tag in Page(part.encode()).tags if tag != "time"] for part in (body, pattern)]
        self.assertEqual(*tags)
        classes = [[v for n, v in Page(part.encode()).attributes if n == "class"] for part in (body, pattern)]
        self.assertEqual(classes[0], ["select", "name", "icon", "size", "date"])
        self.assertEqual(*classes)

    def test_script(self) -> None:
        """The only script is ours, by its nonce; nothing is inline, neither script nor style."""
        page = seen(WHERE, ROWS)
        scripts = [attributes for tag, attributes in page.elements if tag == "script"]
        (script,) = scripts
        self.assertEqual((script["type"], script["nonce"]), ("module", "N0nce"))
        self.assertRegex(script["src"], r"\A/-/static/[0-9a-f]{12}/page\.js\Z")
        self.assertFalse({"style", "iframe", "img", "base", "object"} & set(page.tags))
        self.assertFalse([n for n, _ in page.attributes if n == "style" or n.startswith("on")])


class Rights(SynchronousTestCase):
    """A page has the forms of what its visitor may do, and no others."""

    def test_everything(self) -> None:
        """Whoever may do everything posts to the routes of this directory."""
        page = seen(WHERE, ROWS, addresses=Addresses("/x", OWN_NAMES))
        self.assertEqual(page.by_id("upload")["action"], "/x/a%20b/c/")
        self.assertEqual(page.by_id("upload")["enctype"], "multipart/form-data")
        self.assertEqual(page.by_id("new-directory")["action"], "/x/-/new/a%20b/c/")
        self.assertEqual(page.by_id("entries")["action"], "/x/-/move/a%20b/c/")
        for name, route in (
            ("download-zip", "pack"),
            ("download-tar", "pack"),
            ("move", "move"),
            ("rename", "move"),
            ("delete", "remove"),
        ):
            self.assertEqual(page.by_id(name)["formaction"], f"/x/-/{route}/a%20b/c/")
        for tag, attributes in page.elements:
            if tag == "form" and attributes["id"] != "filter":
                self.assertEqual(attributes["method"], "post", attributes)

    def test_reading(self) -> None:
        """Whoever may read selects and downloads; no form changes anything."""
        page = seen(WHERE, ROWS, READER)
        self.assertEqual(set(page.ids()) & set(CHANGING), set())
        self.assertTrue({"download-zip", "download-tar", "download-menu", "filter"} <= set(page.ids()))
        self.assertEqual(page.by_id("page")["data-may"], "read")

    def test_one_right_each(self) -> None:
        """The right to write brings no delete, and the right to delete nothing else."""
        writer = seen(WHERE, ROWS, Visitor(Right.READ | Right.WRITE))
        self.assertEqual(set(CHANGING) - set(writer.ids()), {"delete"})
        deleter = seen(WHERE, ROWS, Visitor(Right.READ | Right.DELETE))
        self.assertEqual(set(CHANGING) & set(deleter.ids()), {"delete"})
        self.assertEqual(deleter.by_id("page")["data-may"], "read delete")

    def test_how_long_a_link_is_good(self) -> None:
        """A week is proposed for a link; the longest choice is the longest that a link may be good."""
        text = directory_page(WHERE, ROWS, Addresses(), visitor=ANYBODY, nonce="n").decode()
        form = Page(text.partition('<form id="share-directory"')[2].partition("</form>")[0].encode())
        options = {int(a["value"]): "selected" in a for tag, a in form.elements if tag == "option"}
        self.assertEqual([seconds for seconds, chosen in options.items() if chosen], [DEFAULT_TIME])
        self.assertEqual(max(options), MAX_TIME)

    def test_above_the_exported_directories(self) -> None:
        """Where nothing can be changed, not even those who may are offered it; sharing is another matter."""
        page = seen(ROOT, [row("a/b", "directory")], changeable=False)
        self.assertEqual(set(page.ids()) & set(CHANGING), {"share-directory", "shares"})
        self.assertNotIn("select-all", page.ids())
        self.assertEqual(page.entries()[0]["data-name"], "a/b")

    def test_own_names(self) -> None:
        """In a directory called like a route of ours, uploads go through the files route."""
        page = seen(RelPath(("-",)), [])
        self.assertEqual(page.by_id("upload")["action"], "/-/files/-/")
        self.assertEqual(page.by_id("new-directory")["action"], "/-/new/-/")


class Accounts(SynchronousTestCase):
    """Who the page says one is."""

    def test_sign_in(self) -> None:
        """Whoever could do more with a token is led to where it is asked for, and back to this view."""
        page = seen(WHERE, ROWS, Visitor(Right.READ), view=View("size", "desc"), addresses=Addresses("/x"))
        target = urlsplit(page.by_id("sign-in")["href"])
        self.assertEqual(target.path, "/x/-/sign-in")
        self.assertEqual(parse_qsl(target.query), [("next", "/x/a%20b/c/?sort=size&order=desc")])

    def test_nothing_to_gain(self) -> None:
        """Whoever may do everything already is not asked to sign in."""
        self.assertNotIn("sign-in", seen(WHERE, ROWS, ANYBODY).ids())

    def test_sign_out(self) -> None:
        """Whoever signed in here sees their name and signs out by a form; who sends a token sees the name."""
        page = seen(WHERE, ROWS, Visitor(Right.READ, "an\u202ena", has_session=True))
        self.assertEqual(page.by_id("sign-out")["action"], "/-/sign-out")
        self.assertIn("an\ufffdna", page.text)
        page = seen(WHERE, ROWS, READER)
        self.assertIn("anna", page.text)
        self.assertEqual({"sign-out", "sign-in"} & set(page.ids()), set())


class Views(SynchronousTestCase):
    """Order, filter and pages by plain links and forms."""

    def test_columns(self) -> None:
        """Each column's head orders by it, the one that is ordered by the other way round."""
        page = seen(ROOT, ROWS, view=View("size", "desc", "f", 2))
        heads = [a for tag, a in page.elements if tag == "th" and a.get("scope") == "col"]
        self.assertEqual([head.get("aria-sort") for head in heads[1:]], [None, "descending", None])
        links = {a["data-sort"]: a["href"] for tag, a in page.elements if tag == "a" and "data-sort" in a}
        self.assertEqual(
            links,
            {
                "name": "/?filter=f",
                "size": "/?sort=size&order=asc&filter=f",
                "mtime": "/?sort=mtime&order=desc&filter=f",
            },
        )

    def test_filter(self) -> None:
        """The filter keeps the order, shows what was typed, and says how many it found."""
        rows = [row("one"), row("two"), row("three")]
        page = seen(ROOT, rows, view=View("size", "desc", "O"))
        self.assertEqual([entry["data-name"] for entry in page.entries()], ["one", "two"])
        fields = {a["name"]: a["value"] for tag, a in page.elements if tag == "input" and "value" in a}
        self.assertEqual((fields["filter"], fields["sort"], fields["order"]), ("O", "size", "desc"))
        self.assertIn("2 of 3 entries", page.text)
        self.assertEqual((page.by_id("page")["data-total"], page.by_id("page")["data-shown"]), ("3", "2"))

    def test_filter_that_finds_nothing(self) -> None:
        """Nothing found is said, with the way back; the table is there, but hidden."""
        page = seen(ROOT, ROWS, view=View(filter="<b>\u202e"))
        self.assertIn("Nothing here has “<b>\ufffd” in its name", page.text)
        self.assertEqual(page.link("Show all entries"), "/")
        self.assertIn("hidden", page.by_id("entries"))
        self.assertNotIn("hidden", seen(ROOT, ROWS).by_id("entries"))

    def test_an_empty_directory(self) -> None:
        """An empty directory says so, and takes uploads."""
        page = seen(ROOT, [])
        self.assertIn("This directory is empty.", page.text)
        self.assertTrue({"empty", "upload", "listing"} <= set(page.ids()))
        self.assertNotIn("download-menu", page.ids())

    def test_pages(self) -> None:
        """A long directory comes in pages with links to the next and the one before; too far is the last."""
        rows = [row(f"f{number}") for number in range(2 * PAGE_LENGTH + 1)]
        found = []
        for number, links in (
            (1, {"next": 2}),
            (2, {"prev": 1, "next": 3}),
            (3, {"prev": 2}),
            (9, {"prev": 2}),
        ):
            page = seen(ROOT, rows, view=View("mtime", "asc", page=number))
            rels = {a["rel"]: a["href"] for tag, a in page.elements if tag == "a" and "rel" in a}
            suffix = {2: "&page=2", 3: "&page=3"}
            expected = {rel: f"/?sort=mtime&order=asc{suffix.get(to, '')}" for rel, to in links.items()}
            self.assertEqual(rels, expected)
            self.assertIn(f"Page {min(number, 3)} of 3", page.text)
            self.assertEqual(page.by_id("page")["data-total"], str(len(rows)))
            if number < 4:
                found += [entry["data-name"] for entry in page.entries()]
        self.assertEqual(found, [one.name for one in rows])
        self.assertNotIn("pager", seen(ROOT, ROWS).ids())


class Shares(SynchronousTestCase):
    """A shared directory: the same page, to look at only, and nothing above it."""

    ADDRESSES = Addresses("/x", OWN_NAMES, base="/-/share/KEY", top=RelPath(("secret", "list")))

    def test_nothing_above(self) -> None:
        """Links stay below the share, and what lies above it is not even named."""
        top = self.ADDRESSES.top
        for where, links in ((top, ["/"]), (top / "b" / "c", ["/", "/b/", "/b/"])):
            page = seen(where, [row("f"), row("d", "directory")], None, addresses=self.ADDRESSES)
            found = [href for href, _ in page.links if "?" not in href and not href.startswith("#")]
            here = "/" + "".join(f"{name}/" for name in where.parts[2:])
            expected = [*links, f"{here}d/", f"{here}f"]
            self.assertEqual(found, [f"/x/-/share/KEY{link}" for link in expected])
            for href, _ in page.links:
                self.assertTrue(href.startswith(("/x/-/share/KEY/", "#")), href)
            self.assertNotIn("secret", page.text)

    def test_no_forms(self) -> None:
        """A share has no form but the filter, nobody's name, and nothing to select."""
        page = seen(self.ADDRESSES.top, [row("f")], None, addresses=self.ADDRESSES)
        forms = [a["id"] for tag, a in page.elements if tag == "form"]
        self.assertEqual(forms, ["filter", "entries"])
        self.assertEqual(set(page.ids()) & {*CHANGING, "sign-in", "sign-out", "select-all", "actions"}, set())
        main = page.by_id("page")
        self.assertEqual((main["data-may"], main["data-directory"]), ("read", "/"))

    def test_what_is_not_below_it(self) -> None:
        """A path beside the share has no address in it."""
        self.assertRaises(FileNotFoundError, self.ADDRESSES.entry, RelPath(("secret", "other")))


class HostileNames(SynchronousTestCase):
    """Every name that a file system can hold, on the page for people."""

    def test_links_and_boxes(self) -> None:
        """The link and the box of an entry lead to exactly its name, byte for byte."""
        for where in (ROOT, RelPath(("ü %", "b"))):
            for name in ODD_NAMES:
                page = seen(where, [row(name)])
                hrefs = [href for href, _ in page.links if "?" not in href and href != "#"]
                self.assertEqual(follow(hrefs[-1]), where / name)
                (entry,) = page.entries()
                self.assertEqual(entry["data-name"], quote_name(name))
                raw = unquote_to_bytes(entry["data-name"])
                self.assertEqual(raw, name.encode("utf-8", "surrogateescape"))

    def test_no_name_adds_markup(self) -> None:
        """A page has the same elements whatever its names and its filter are."""
        plain = seen(RelPath(("d", "e")), [row("f")], view=View(filter="")).tags
        for name in ODD_NAMES:
            page = seen(RelPath((name, "e")), [row(name)], Visitor(Right.ALL))
            self.assertEqual(page.tags, plain, name)
            self.assertFalse([a for a, _ in page.attributes if a.startswith("on") or a == "style"], name)
            page = seen(ROOT, [row(name)], view=View(filter=name))
            self.assertEqual(page.tags.count("script"), 1, name)

    def test_the_page_is_clean_utf8(self) -> None:
        """A page is valid UTF-8 and holds no control but the newline, nor anything that reorders text."""
        rows = [row(name, kind) for name in ODD_NAMES for kind in ("file", "directory", "link", "other")]
        for text in ("", "\x1b\u202e\udce9"):
            page = directory_page(
                RelPath(ODD_NAMES[5:9]),
                [*rows, row(text + "x")],
                Addresses(),
                view=View(filter=text),
                visitor=Visitor(Right.ALL, "\u202ename"),
                nonce="n",
            ).decode("utf-8")
            for character in page.replace("\n", ""):
                self.assertFalse(character < " " or "\x7f" <= character <= "\x9f", repr(character))
                self.assertNotIn(character, "\u200b\u200e\u200f\u2028\u202a\u202e\u2066\u2069\ufeff")
