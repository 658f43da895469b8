"""The page in a browser that runs no scripts: links and forms do all that one needs."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path
from typing import Any, ClassVar

from playwright.sync_api import Locator

from tests.proof.browser_files import png
from tests.proof.page import Directory, PageCase, tree


class PlainTests(PageCase):
    """Everything with JavaScript switched off."""

    context_options: ClassVar[dict[str, Any]] = {"java_script_enabled": False}
    # A name that is taken is answered with a page of 409.
    failures = True

    def press(self, button: Locator, status: int = 200) -> None:
        """Press a button that leads to a page."""
        with self.page.expect_navigation() as navigation:
            button.click()
        answer = navigation.value
        assert answer is not None
        self.assertEqual(answer.status, status, answer.url)

    def download(self, button: Locator) -> tuple[str, Path]:
        """Press a button that leads to a file; its name, and where it is."""
        with self.page.expect_download() as started:
            button.click()
        return started.value.suggested_filename, Path(started.value.path())

    def test_look(self) -> None:
        """Lists, walks down and up, sorts and filters by links and forms alone."""
        for name, size in (("file10.txt", 1), ("File2.txt", 3), ("file1.txt", 2)):
            self.write(name, b"x" * size)
        self.write("two words/below.txt")
        self.start()
        directory = self.open()
        self.assertEqual(directory.names(), ["two words", "file1.txt", "File2.txt", "file10.txt"])
        self.press(directory.link("two words"))
        self.assertEqual(directory.names(), ["below.txt"])
        self.press(self.page.get_by_role("navigation").get_by_role("link", name="/", exact=True))
        column = self.page.locator("#listing thead").get_by_role("link", name="Size")
        self.press(column)
        self.assertEqual(directory.names(), ["two words", "File2.txt", "file1.txt", "file10.txt"])
        self.assertEqual(self.page.locator("#listing th[aria-sort=descending]").inner_text(), "Size")
        self.press(column)
        self.assertEqual(directory.names(), ["two words", "file10.txt", "file1.txt", "File2.txt"])
        self.page.locator("#filter input[name=filter]").fill("E1")
        with self.page.expect_navigation():
            self.page.locator("#filter input[name=filter]").press("Enter")
        self.assertEqual(sorted(directory.names()), ["file1.txt", "file10.txt"])

    def test_download(self) -> None:
        """One file, and a selection of files and directories as one archive: complete and equal."""
        self.write("a.bin", bytes(range(256)) * 100)
        self.write("d/e/f.txt")
        self.write("not this.txt")
        self.start()
        directory = self.open()
        _, path = self.download(directory.link("a.bin"))
        self.assertEqual(path.read_bytes(), (self.root / "a.bin").read_bytes())
        directory.select("a.bin", "d")
        name, path = self.download(self.page.locator("#download-zip"))
        self.assertEqual(name, "files.zip")
        with zipfile.ZipFile(io.BytesIO(path.read_bytes())) as archive:
            self.assertIsNone(archive.testzip())
            archive.extractall(self.base / "zip")
        name, path = self.download(self.page.locator("#download-tar"))
        with tarfile.open(path) as tar:
            tar.extractall(self.base / "tar", filter="data")
        wanted = {name: held for name, held in tree(self.root).items() if name != "not this.txt"}
        for form in ("zip", "tar"):
            self.assertEqual(tree(next((self.base / form).iterdir())), wanted)

    def test_upload(self) -> None:
        """Files by the form: new ones; over an existing one only where that was chosen; beside it."""
        self.write("d/old.txt", b"old")
        here = self.base / "here"
        here.mkdir()
        (here / "old.txt").write_bytes(b"new")
        (here / "image.png").write_bytes(png(3, 3))
        self.start()
        directory = self.open("d/")
        self.upload(directory, here / "image.png")
        self.assertEqual(directory.names(), ["image.png", "old.txt"])
        self.upload(directory, here / "old.txt", status=409)
        self.assertEqual((self.root / "d/old.txt").read_bytes(), b"old")
        for conflict in ("replace", "rename"):
            self.upload(self.open("d/"), here / "old.txt", conflict)
        self.assertEqual((self.root / "d/old.txt").read_bytes(), b"new")
        self.assertEqual(directory.names(), ["image.png", "old (1).txt", "old.txt"])
        self.assertEqual((self.root / "d/image.png").read_bytes(), png(3, 3))

    def upload(self, directory: Directory, file: Path, conflict: str = "abort", *, status: int = 200) -> None:
        """Upload a file by the form."""
        self.page.locator("#upload-menu > summary").click()
        self.page.locator("#upload [name=conflict]").select_option(conflict)
        directory.choose(file)
        self.press(self.page.locator("#upload button"), status)

    def test_change(self) -> None:
        """Makes a directory, moves into it, renames, deletes after a confirmation that names what goes."""
        for name in ("a.txt", "b & c.txt", "keep.txt"):
            self.write(name)
        self.start()
        directory = self.open()
        self.page.locator("#new-directory-menu > summary").click()
        self.page.locator("#new-directory input[name=name]").fill("new one")
        self.press(self.page.locator("#new-directory button"))
        self.assertTrue((self.root / "new one").is_dir())
        directory.select("a.txt", "b & c.txt")
        self.page.locator("#move-menu > summary").click()
        self.page.locator("#entries input[name=to]").fill("new%20one")
        self.press(self.page.locator("#move"))
        self.assertEqual(directory.names(), ["new one", "keep.txt"])
        self.assertEqual(sorted(tree(self.root / "new one")), ["a.txt", "b & c.txt"])
        directory.select("keep.txt")
        self.page.locator("#rename-menu > summary").click()
        self.page.locator("#entries input[name=name]").fill("kept.txt")
        self.press(self.page.locator("#rename"))
        self.assertEqual(directory.names(), ["new one", "kept.txt"])
        self.delete(directory, "new one")
        self.assertEqual(sorted(tree(self.root)), ["kept.txt"])

    def delete(self, directory: Directory, name: str) -> None:
        """Delete an entry; the page in between asks, and changes nothing."""
        directory.select(name)
        self.press(self.page.locator("#delete"))
        self.assertIn(name, self.page.locator("main").inner_text())
        self.assertTrue((self.root / name).exists())
        self.press(self.page.locator("main form button").first)

    def test_nothing_allowed(self) -> None:
        """Whoever may only read sees no form that changes anything."""
        self.write("a.txt")
        self.start("--anonymous", "read")
        self.open()
        for gone in ("#upload", "#new-directory", "#delete", "#move", "#rename", "#share-directory"):
            self.assertEqual(self.page.locator(gone).count(), 0, gone)
        self.assertEqual(self.page.locator("#download-zip").count(), 1)
