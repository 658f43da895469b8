"""The page where something does not go well: what was selected, done and refused is never lost."""

from __future__ import annotations

import zipfile

from playwright.sync_api import Page, Request, Route, expect

from tests.proof.page import Directory, PageCase, tree
from tests.proof.test_page_access import AccessCase

#: Bytes of a file, all of them a hole, that is compressed for longer than a test lasts.
LONG = 20 << 30


def come_back(page: Page) -> None:
    """What a page hears when somebody comes back to its tab."""
    page.evaluate("document.dispatchEvent(new Event('visibilitychange', {bubbles: true}))")


class EarlyTests(PageCase):
    """The page before all of the directory is known to it."""

    failures = True

    def test_early(self) -> None:
        """With some of the directory, what is ticked is what is acted on; it stays so when the rest comes."""
        for name in ("f1.txt", "f2.txt", "f3.txt", "g.txt"):
            self.write(name)
        self.start()
        busy = "**/*json=page*"
        self.page.route(busy, lambda route: route.fulfill(status=503, body="ERROR - busy"))
        directory = self.open("?sort=size&filter=f")
        expect(self.page.locator("#status")).to_have_text("Busy.")
        directory.select("f1.txt", "f2.txt")
        with self.page.expect_download() as started:
            self.page.locator("#download-zip").click()
        with zipfile.ZipFile(started.value.path()) as archive:
            self.assertEqual(len(archive.namelist()), 2)
        self.page.locator("#filter input[type=search]").fill("f1")
        self.page.locator("#filter input[type=search]").dispatch_event("change")
        directory.expect(["f1.txt", "f2.txt", "f3.txt"])
        self.page.locator("#delete").click()
        self.assertIn("2 entries", directory.dialog.inner_text())
        directory.answer("cancel")
        self.page.unroute(busy)
        come_back(self.page)
        directory.expect(["f1.txt"])
        self.page.locator("#filter input[type=search]").fill("")
        directory.expect(["g.txt", "f1.txt", "f2.txt", "f3.txt"])
        expect(self.page.locator("#selected")).to_have_text("2 selected")

    def test_follow(self) -> None:
        """A sort or a filter that is asked for while only some is known is the server's."""
        for name in ("f1.txt", "f2.txt"):
            self.write(name)
        self.start()
        self.page.route("**/*json=page*", lambda route: route.fulfill(status=503, body="ERROR - busy"))
        directory = self.open("?sort=size")
        self.page.locator("#filter input[type=search]").fill("f2")
        with self.page.expect_navigation():
            self.page.keyboard.press("Enter")
        directory.expect(["f2.txt"])
        with self.page.expect_navigation():
            self.page.locator("#listing thead [data-sort=mtime]").click()
        self.assertIn("sort=mtime", self.page.url)


class JobTests(PageCase):
    """Archives that the server makes."""

    # The daemon is stopped while a stream of events is open.
    failures = True

    def test_many(self) -> None:
        """However many are made at once, one connection brings the news of all, and each is cancelled."""
        names = [f"{number}.bin" for number in range(8)]
        for name in names:
            with self.write(name).open("wb") as file:
                file.truncate(LONG)
        self.start()
        streams: list[str] = []
        self.page.on("request", lambda request: _note_stream(streams, request))
        self.open()
        self.page.locator("#select-all").check()
        self.page.locator("#compress").click()
        self.page.locator("#dialog button[value=compress]").click()
        jobs = self.page.locator("#jobs li")
        expect(jobs).to_have_count(len(names))
        expect(self.page.locator("#jobs li[data-state=running] progress[value]").first).to_be_visible()
        self.assertEqual(len(streams), 1, streams)
        for job in jobs.all():
            job.locator(".cancel").click()
        expect(self.page.locator("#jobs li[data-state=cancelled]")).to_have_count(len(names))
        self.assertEqual(len(streams), 1, streams)
        self.page.reload()
        expect(self.page.locator("html[data-scripted]")).to_be_attached()


def _note_stream(streams: list[str], request: Request) -> None:
    if request.url.endswith("/events"):
        streams.append(request.url)


class RefusedTests(PageCase):
    """Changes of which the server does some, or none."""

    failures = True

    def test_none(self) -> None:
        """Where nothing could be done, each entry is named with its reason, and nothing is under way."""
        for name in ("a.txt", "b.txt"):
            self.write(name)
            self.write(f"d/{name}")
        self.start()
        directory = self.open()
        directory.select("a.txt", "b.txt")
        self.move(directory, "d")
        expect(directory.dialog.locator("h2")).to_have_text("2 entries are as before")
        self.assertIn("a.txt: ", directory.dialog.inner_text())
        self.assertIn("b.txt: ", directory.dialog.inner_text())
        expect(self.page.locator("#status")).to_be_empty()

    def test_became(self) -> None:
        """What became a directory while its deletion was being asked about stays, with all that is in it."""
        self.write("x")
        self.start()
        directory = self.open()
        directory.select("x")
        self.page.locator("#delete").click()
        (self.root / "x").unlink()
        self.write("x/precious.txt")
        come_back(self.page)
        expect(directory.row("x")).to_have_attribute("data-type", "directory")
        directory.answer("delete")
        expect(directory.dialog.locator("h2")).to_have_text("1 entry is as before")
        self.assertIn("x/precious.txt", tree(self.root))

    def test_broken(self) -> None:
        """Of several requests the second is refused whole: what the first did is told, and the rest named."""
        names = [f"{number:04}.txt" for number in range(1001)]
        for name in names:
            self.write(name, b"")
        self.start()
        directory = self.open()
        expect(self.page.locator("#listing[aria-rowcount='1002']")).to_be_attached()
        asked: list[str] = []

        def second(route: Route) -> None:
            asked.append(route.request.url)
            if len(asked) == 1:
                route.continue_()
            else:
                route.fulfill(status=503, body="ERROR - busy")

        self.page.route("**/-/remove/**", second)
        self.page.locator("#select-all").check()
        self.page.locator("#delete").click()
        directory.answer("delete")
        expect(directory.dialog.locator("h2")).to_have_text("1 entry is as before")
        self.assertIn(f"{names[-1]}: Busy.", directory.dialog.inner_text())
        expect(self.page.locator("#status")).to_have_text("Deleted 1,000 entries.")
        directory.expect(names[-1:])
        self.assertEqual(list(tree(self.root)), names[-1:])

    def move(self, directory: Directory, to: str) -> None:
        """Move what is selected by the page's dialog."""
        self.page.locator("#move-menu > summary").click()
        directory.dialog.locator("input[name=to]").fill(to)
        directory.answer("move")


class SessionTests(AccessCase):
    """A session that ends where anybody may read."""

    def test_over(self) -> None:
        """It is said, and stays said while others can be read, until a change is done again."""
        self.start("--token-file", str(self.tokens), "--anonymous", "read")
        self.page.goto(f"{self.url}-/sign-in")
        self.sign_in()
        directory = self.open("d/")
        directory.select("a.txt")
        kept = self.context.cookies()
        self.context.clear_cookies()
        self.page.locator("#delete").click()
        with self.page.expect_response("**/*json=page*"):
            directory.answer("delete")
        over = self.page.locator("#session-over")
        over.wait_for()
        come_back(self.page)
        directory.expect(["e", "a.txt"])
        self.assertEqual(over.count(), 1)
        expect(self.page.locator("#status")).to_be_empty()
        self.context.add_cookies([{"name": kept[0]["name"], "value": kept[0]["value"], "url": self.url}])
        self.page.locator("#delete").click()
        directory.answer("delete")
        directory.expect(["e"])
        expect(over).to_have_count(0)


class FilterTests(PageCase):
    """Selecting beside a filter."""

    def test_select(self) -> None:
        """The first click after typing counts; what the filter hides stays selected, whatever is done."""
        for name in ("a1.txt", "a2.txt", "b1.txt"):
            self.write(name)
        self.start()
        directory = self.open()
        directory.select("b1.txt")
        self.page.locator("#filter input[type=search]").focus()
        self.page.keyboard.type("a")
        directory.expect(["a1.txt", "a2.txt"])
        selected = self.page.locator("#selected")
        self.page.locator("#select-all").click()
        expect(selected).to_have_text("3 selected")
        self.page.locator("#select-all").click()
        expect(selected).to_have_text("1 selected")
        directory.link("a1.txt").focus()
        self.page.keyboard.press("Control+a")
        expect(selected).to_have_text("3 selected")
        self.page.locator("#filter input[type=search]").fill("")
        directory.expect(["a1.txt", "a2.txt", "b1.txt"])
        self.assertTrue(directory.row("b1.txt").locator("input").is_checked())
