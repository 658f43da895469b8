"""The page with its scripts: looking, filtering, selecting, and what is done with what is selected."""

from __future__ import annotations

import re
import struct
import tarfile
import zipfile
from pathlib import Path

from playwright.sync_api import Locator

from tests.proof.browser_files import WEBM, png
from tests.proof.commands import eventually
from tests.proof.counts import SOAK
from tests.proof.page import PageCase, tree
from tests.proof.process import MIB, say

#: Entries of the large directory, and what its first paint is measured with.
MANY = 50_000 if SOAK else 5_000


class LookTests(PageCase):
    """Finding something."""

    def test_look(self) -> None:
        """Down and up by links; sorted by a click; filtered while one types; a reload shows the same."""
        for name, size in (("file10.txt", 1), ("File2.txt", 3), ("file1.txt", 2)):
            self.write(name, b"x" * size)
        self.write("two words/d/below.txt")
        self.start()
        directory = self.open()
        directory.expect(["two words", "file1.txt", "File2.txt", "file10.txt"])
        directory.link("two words").click()
        directory.link("d").click()
        directory.expect(["below.txt"])
        up = self.page.get_by_role("navigation").get_by_role("link", name="..", exact=True)
        up.click()
        directory.expect(["d"])
        self.page.get_by_role("navigation").get_by_role("link", name="/", exact=True).click()
        directory.ready()
        self.page.locator("#listing thead [data-sort=size]").click()
        directory.expect(["two words", "File2.txt", "file1.txt", "file10.txt"])
        self.assertEqual(self.page.locator("th[aria-sort=descending]").count(), 1)
        self.page.locator("#listing thead [data-sort=size]").click()
        directory.expect(["two words", "file10.txt", "file1.txt", "File2.txt"])
        self.page.keyboard.press("/")
        self.page.keyboard.type("E1")
        directory.expect(["file10.txt", "file1.txt"])
        self.page.wait_for_url(re.compile("filter=E1"))
        self.page.reload()
        directory.ready()
        directory.expect(["file10.txt", "file1.txt"])

    def test_many(self) -> None:
        """A directory of thousands: the rows that are seen are written, the last is reached, one is found."""
        for number in range(MANY):
            self.write(f"entry {number}.txt", b"")
        self.start()
        directory = self.open()
        self.page.wait_for_function("() => document.querySelector('#listing').ariaRowCount !== null")
        paint = self.page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
        say(f"page of {MANY} entries: first paint after {paint:.0f} ms")
        self.assertLess(directory.rows.count(), 1_000)
        self.page.keyboard.press("Tab")
        self.page.evaluate("scrollTo(0, document.documentElement.scrollHeight)")
        directory.row(f"entry {MANY - 1}.txt").wait_for()
        self.page.locator("#filter input[type=search]").fill(f"{MANY - 7}.")
        directory.expect([f"entry {MANY - 7}.txt"])

    def test_keyboard(self) -> None:
        """Arrows walk, space selects, Enter opens, Delete asks, Escape gives up."""
        for name in ("a.txt", "b.txt", "c.txt"):
            self.write(name)
        self.write("d/below.txt")
        self.start()
        directory = self.open()
        directory.link("d").focus()
        self.page.keyboard.press("ArrowDown")
        self.page.keyboard.press("Space")
        self.page.keyboard.press("ArrowDown")
        self.page.keyboard.press("Space")
        chosen = self.page.locator("#listing tbody input:checked")
        self.assertEqual(chosen.evaluate_all("all => all.map(one => one.value)"), ["a.txt", "b.txt"])
        self.page.keyboard.press("Delete")
        directory.dialog.wait_for()
        self.page.keyboard.press("Escape")
        directory.dialog.wait_for(state="hidden")
        self.page.keyboard.press("Escape")
        self.assertEqual(chosen.count(), 0)
        self.assertEqual(len(tree(self.root)), 5)
        directory.link("d").focus()
        self.page.keyboard.press("Enter")
        directory.expect(["below.txt"])


class SelectTests(PageCase):
    """What is done with selected entries."""

    def download(self, button: Locator) -> Path:
        """Press a button that leads to a file; where it is then."""
        with self.page.expect_download() as started:
            button.click()
        return Path(started.value.path())

    def test_download(self) -> None:
        """Selected files and directories as zip and as tar.gz: they open and are equal."""
        self.write("a b.bin", bytes(range(256)) * 1000)
        self.write("d/e/f.txt")
        self.write("not this.txt")
        self.start()
        directory = self.open()
        directory.select("a b.bin", "d")
        with zipfile.ZipFile(self.download(self.page.locator("#download-zip"))) as archive:
            self.assertIsNone(archive.testzip())
            archive.extractall(self.base / "zip")
        with tarfile.open(self.download(self.page.locator("#download-tar"))) as tar:
            tar.extractall(self.base / "tar", filter="data")
        wanted = {name: held for name, held in tree(self.root).items() if name != "not this.txt"}
        for form in ("zip", "tar"):
            self.assertEqual(tree(next((self.base / form).iterdir())), wanted)

    def test_change(self) -> None:
        """A new directory, moving into it, renaming, deleting after a confirmation; the page follows."""
        for name in ("a.txt", "b & c.txt", "keep.txt"):
            self.write(name)
        self.start()
        directory = self.open()
        self.page.locator("#new-directory-menu > summary").click()
        self.page.locator("#new-directory input[name=name]").fill("new one")
        self.page.keyboard.press("Enter")
        directory.expect(["new one", "a.txt", "b & c.txt", "keep.txt"])
        directory.select("a.txt", "b & c.txt")
        self.page.locator("#move-menu > summary").click()
        directory.dialog.locator("input[name=to]").fill("new one")
        directory.answer("move")
        directory.expect(["new one", "keep.txt"])
        directory.select("keep.txt")
        self.page.locator("#rename-menu > summary").click()
        directory.dialog.locator("input[name=name]").fill("kept.txt")
        directory.answer("rename")
        directory.expect(["new one", "kept.txt"])
        self.assertEqual(
            sorted(tree(self.root)), ["kept.txt", "new one", "new one/a.txt", "new one/b & c.txt"]
        )
        self.page.locator("#select-all").check()
        directory.row("kept.txt").locator("input[name=entry]").uncheck()
        for answer in ("cancel", "delete"):
            self.page.locator("#delete").click()
            self.assertIn("new one", directory.dialog.inner_text())
            self.assertEqual(len(tree(self.root)), 4)
            directory.answer(answer)
            directory.dialog.wait_for(state="hidden")
        directory.expect(["kept.txt"])
        self.assertEqual(sorted(tree(self.root)), ["kept.txt"])

    def test_move_above(self) -> None:
        """A path that would lead above the root is refused, and what was to go there stays."""
        self.failures = True
        self.write("a/keep.txt")
        self.start()
        directory = self.open("a/")
        directory.select("keep.txt")
        self.page.locator("#move-menu > summary").click()
        directory.dialog.locator("input[name=to]").fill("../..")
        directory.answer("move")
        directory.dialog.get_by_text("above the root").wait_for()
        self.assertEqual(sorted(tree(self.root)), ["a", "a/keep.txt"])

    def test_compress(self) -> None:
        """The server compresses: its progress is seen, then a link that leads to the archive."""
        self.write("large.bin", b"fileexport" * (8 * MIB // 10))
        self.start()
        directory = self.open()
        directory.select("large.bin")
        self.page.locator("#compress").click()
        directory.dialog.locator("select[name=format]").select_option("zip")
        directory.answer("compress")
        job = self.page.locator("#jobs li").first
        job.locator("a").wait_for()
        self.assertEqual(job.get_attribute("data-state"), "done")
        directory.expect(["large.bin", "large.zip"])
        with zipfile.ZipFile(self.download(job.locator("a"))) as archive:
            self.assertEqual(archive.read("large.bin"), (self.root / "large.bin").read_bytes())


class PreviewTests(PageCase):
    """A look at files without leaving the page."""

    def test_preview(self) -> None:
        """Image, text, PDF, sound and video are shown, one after the other; other files are not."""
        self.write("1 image.png", png(48, 32))
        self.write("2 text.txt", "<b>é世</b>\n".encode() * 10_000)
        self.write("3 sound.wav", wav(800))
        self.write("4 moving.webm", WEBM.read_bytes())
        self.write("5 other.bin", b"\0")
        self.start()
        directory = self.open()
        url = self.page.url
        directory.link("1 image.png").click()
        stage = directory.dialog.locator(".stage")
        eventually(
            "the image is shown", lambda: stage.locator("img").evaluate("one => one.naturalWidth") == 48
        )
        self.page.locator("#next").click()
        text = stage.locator("pre")
        eventually("the text is shown", lambda: "é世" in (text.text_content() or ""))
        self.assertTrue((text.text_content() or "").startswith("<b>é世</b>\n<b>"))
        self.assertLessEqual(len((text.text_content() or "").encode()), 66_000)
        self.page.keyboard.press("ArrowRight")
        for kind in ("audio", "video"):
            player = stage.locator(kind)
            eventually(f"the {kind} is loaded", lambda: player.evaluate("one => one.readyState") >= 1)  # noqa: B023
            self.page.locator("#next").click(force=True) if kind == "audio" else None
        self.assertTrue(self.page.locator("#next").is_disabled())
        self.page.keyboard.press("Escape")
        directory.dialog.wait_for(state="hidden")
        self.assertEqual(self.page.url, url)


def wav(samples: int) -> bytes:
    """Silence: one channel of eight bits at 8 kHz."""
    data = b"\x80" * samples
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, 8000, 8000, 1, 8)
    body = b"WAVE" + form + struct.pack("<4sI", b"data", samples) + data
    return struct.pack("<4sI", b"RIFF", len(body)) + body
