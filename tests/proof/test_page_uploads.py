"""Uploads by the page: dropped, chosen, cut, paused, and two of one name."""

from __future__ import annotations

import json
import os
import random
from base64 import b64encode
from pathlib import Path
from urllib.request import Request as Asking
from urllib.request import urlopen

from playwright.sync_api import CDPSession, Page, Request

from tests.proof.commands import eventually
from tests.proof.counts import SOAK, Tally
from tests.proof.daemon import Daemon
from tests.proof.page import Directory, PageCase, tree
from tests.proof.process import MIB

FILES = 200
#: Bytes of the upload that is cut.
LARGE = 300 * MIB
#: Bytes that the browser sends in a second there, so that there is time to cut it.
SPEED = LARGE // (20 if SOAK else 6)
_CUTS = Tally("uploads of the page that were cut")


class UploadCase(PageCase):
    """Has a directory beside the root, of whoever sits at the browser."""

    def setUp(self) -> None:
        super().setUp()
        self.here = self.base / "here"
        self.here.mkdir()

    def file(self, name: str, content: bytes) -> Path:
        """A file to be uploaded."""
        path = self.here / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    def slow(self, page: Page, speed: int) -> CDPSession:
        """Let the page send no more than so many bytes in a second."""
        session = page.context.new_cdp_session(page)
        session.send("Network.enable")
        conditions = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": speed}
        session.send("Network.emulateNetworkConditions", conditions)
        return session

    def sent(self) -> int:
        """Bytes that the server has of what is not complete."""
        with urlopen(Asking(f"{self.url}-/uploads", headers={"Accept": "application/json"})) as answer:
            return sum(upload["offset"] for upload in json.loads(answer.read()))


class DropTests(UploadCase):
    """Dragged from elsewhere, and dropped on the page."""

    # A name that is taken is an answer of 409.
    failures = True

    def test_tree(self) -> None:
        """200 files in directories, and an empty one, arrive as they are; the page shows them at once."""
        chance = random.Random(8)
        top = self.here / "dropped é"
        for number in range(FILES):
            below = "/".join(chance.choices(("one", "two words", "#3%41", "日本"), k=chance.randrange(4)))
            self.file(
                f"dropped é/{below}/{number}.bin", chance.randbytes(chance.choice((0, 10, 1_000, 50_000)))
            )
        (top / "empty").mkdir()
        self.start()
        self.write("there.txt")
        directory = self.open()
        directory.expect(["there.txt"])
        directory.drop(top, self.file("alone.txt", b"alone"))
        eventually("all have come", lambda: tree(self.root / top.name) == tree(top))
        directory.expect([top.name, "alone.txt", "there.txt"])
        self.assertEqual((self.root / "alone.txt").read_bytes(), b"alone")

    def test_conflicts(self) -> None:
        """Where the name is taken the page asks: skipped, replaced, or beside it; for all at once, too."""
        self.start()
        for number, (answer, after) in enumerate(
            (
                ("skip", {"a.txt": b"old", "b.txt": b"old"}),
                ("rename", {"a.txt": b"old", "a (1).txt": b"new", "b.txt": b"old", "b (1).txt": b"new"}),
                ("replace", {"a.txt": b"new", "b.txt": b"new"}),
            )
        ):
            place = self.root / str(number)
            for name in ("a.txt", "b.txt"):
                self.write(f"{number}/{name}", b"old")
            directory = self.open(f"{number}/")
            directory.choose(self.file("a.txt", b"new"), self.file("b.txt", b"new"))
            directory.dialog.wait_for()
            directory.dialog.locator("input[name=all]").check()
            directory.answer(answer)
            eventually(f"after {answer}", lambda: tree(place) == after)  # noqa: B023

    def test_leaving(self) -> None:
        """While the question is open, the page is not left without another."""
        self.start()
        self.write("a.txt", b"old")
        directory = self.open()
        directory.choose(self.file("a.txt", b"new"))
        directory.dialog.wait_for()
        with self.page.expect_event("dialog") as asked:
            self.page.close(run_before_unload=True)
        self.assertEqual(asked.value.type, "beforeunload")
        asked.value.dismiss()


class CutTests(UploadCase):
    """An upload that is interrupted goes on."""

    # While the daemon is away, requests fail.
    failures = True

    def test_cut(self) -> None:
        """A large file, cut by a restart of the daemon and by a reload of the page, goes on where it was."""
        content = b"".join(random.Random(number).randbytes(MIB) for number in range(LARGE // MIB))
        file = self.file("large.bin", content)
        offsets: list[int] = []
        self.page.on("request", lambda request: offsets.extend(_offset(request)))
        daemon = self.enterContext(Daemon(self.root))
        self.url = daemon.url
        port = daemon.url.rstrip("/").rpartition(":")[2]
        directory = self.open()
        self.slow(self.page, SPEED)
        directory.choose(file)
        eventually("a part has come", lambda: self.sent() > LARGE // 6)
        daemon.kill()
        self.start("-p", port)
        kept = self.sent()
        self.assertGreater(kept, 0)
        eventually("it goes on", lambda: self.sent() > kept + LARGE // 6)
        self.page.reload()
        directory.ready()
        self.page.locator("#transfers li[data-state=unfinished]").wait_for()
        again = self.sent()
        directory.choose(file)
        eventually("it is complete", lambda: (self.root / "large.bin").exists())
        self.assertTrue((self.root / "large.bin").read_bytes() == content, "it is not equal")
        directory.expect_done()
        # Each part began where the one before was known to have ended.
        self.assertEqual(offsets[0], 0)
        self.assertTrue(any(kept <= offset < again for offset in offsets), (offsets, kept, again))
        self.assertGreaterEqual(offsets[-1], again)
        _CUTS.add(2)

    def test_pause(self) -> None:
        """Paused, an upload stands still, and goes on when it may; cancelled, nothing is left of it."""
        file = self.file("paused.bin", random.Random(10).randbytes(8 * MIB))
        self.start()
        directory = self.open()
        session = self.slow(self.page, 2 * MIB)
        directory.choose(file)
        row = directory.transfers.first
        eventually("a part has come", lambda: self.sent() > MIB // 4)
        row.locator(".pause").click()
        self.page.locator("#transfers li[data-state=paused]").wait_for()
        eventually("it stands still", lambda: self.sent() == self.sent() > 0)
        session.send("Network.disable")
        row.locator(".resume").click()
        eventually("it is complete", lambda: tree(self.root) == {file.name: file.read_bytes()})
        self.slow(self.page, 2 * MIB)
        other = self.file("cancelled.bin", random.Random(11).randbytes(8 * MIB))
        directory.choose(other)
        eventually("a part has come", lambda: self.sent() > MIB // 4)
        self.page.locator("#transfers li[data-state=running] .cancel").click()
        eventually("nothing is left", lambda: self._uploads() == [])
        self.assertEqual(list(tree(self.root)), [file.name])

    def _uploads(self) -> object:
        with urlopen(Asking(f"{self.url}-/uploads", headers={"Accept": "application/json"})) as answer:
            return json.loads(answer.read())


#: The answer to the first upload that is made is lost on its way to the page.
_LOSE = """
    const send = XMLHttpRequest.prototype.send, open = XMLHttpRequest.prototype.open;
    let lost = false;
    XMLHttpRequest.prototype.open = function (method, ...rest) {
        this.loses = method === "POST" && !lost;
        open.call(this, method, ...rest);
    };
    XMLHttpRequest.prototype.send = function (body) {
        if (this.loses) { lost = true; this.onload = () => this.onerror(new ProgressEvent("error")); }
        send.call(this, body);
    };
"""


class LostAnswerTests(UploadCase):
    """An upload is made, and the page does not learn of it."""

    def setUp(self) -> None:
        super().setUp()
        self.page.add_init_script(_LOSE)
        self.start()

    def send(self, file: Path, conflict: str, wanted: dict[str, bytes | None]) -> None:
        """Send a file to a page of its own directory; no question is to come."""
        directory = self.open()
        self.page.locator("#upload-menu > summary").click()
        self.page.locator("#upload select[name=conflict]").select_option(conflict)
        directory.choose(file)
        directory.expect_done()
        self.assertFalse(directory.dialog.is_visible())
        self.assertEqual(tree(self.root), wanted)
        self.assertEqual(self.sent(), 0)

    def test_small(self) -> None:
        """A file that was stored with it is not stored twice, and not asked about."""
        for conflict in ("abort", "rename"):
            file = self.file(f"{conflict}.txt", b"new")
            self.send(file, conflict, {**tree(self.root), file.name: b"new"})

    def test_taken(self) -> None:
        """Beside a file that was there before, however like it, one is stored, and no more."""
        file = self.file("a.txt", b"like it")
        moment = file.stat().st_mtime_ns
        os.utime(self.write("a.txt", b"like it"), ns=(moment, moment))
        self.send(file, "rename", {"a.txt": b"like it", "a (1).txt": b"like it"})

    def test_large(self) -> None:
        """One that was begun goes on under its name, rather than beside it."""
        content = random.Random(5).randbytes(2 * MIB)
        self.send(self.file("large.bin", content), "rename", {"large.bin": content})


class LeftTests(UploadCase):
    """The file of an upload that was left is chosen again, or its upload is erased."""

    def leave(self, file: Path) -> None:
        """Leave half of a file on the server, as a page does that is closed then."""
        content, moment = file.read_bytes(), file.stat().st_mtime_ns // 10**6
        told = {"filename": file.name, "mtime": str(moment)}
        headers = {
            "Tus-Resumable": "1.0.0",
            "Content-Type": "application/offset+octet-stream",
            "Upload-Length": str(len(content)),
            "Upload-Metadata": ",".join(
                f"{key} {b64encode(text.encode()).decode()}" for key, text in told.items()
            ),
        }
        with urlopen(Asking(f"{self.url}-/uploads", content[: len(content) // 2], headers)) as answer:
            self.assertEqual(answer.status, 201)

    def choose(self, file: Path) -> None:
        """Choose a file for the upload that was left."""
        with self.page.expect_file_chooser() as chooser:
            self.page.locator("#transfers li[data-state=unfinished] .choose").click()
        chooser.value.set_files(file)

    def test_another(self) -> None:
        """One of the same size but of another time or name is refused; the same file goes on."""
        content, other = (random.Random(seed).randbytes(MIB) for seed in (1, 2))
        file = self.file("first.bin", content)
        moment = file.stat().st_mtime_ns
        newer, named = self.file("newer/first.bin", other), self.file("second.bin", other)
        os.utime(newer, ns=(moment, moment + 10**9))
        os.utime(named, ns=(moment, moment))
        self.start()
        self.leave(file)
        directory = self.open()
        for wrong, differs in ((newer, "time"), (named, "name")):
            self.choose(wrong)
            self.page.locator("#transfers .news").filter(has_text=f"another {differs}").wait_for()
            self.assertEqual(self.sent(), MIB // 2)
        self.choose(file)
        directory.expect_done()
        self.assertEqual(tree(self.root), {"first.bin": content})

    def test_erased(self) -> None:
        """It is not among all that are cancelled; it comes back where the server does not erase it."""
        self.failures = True
        self.start()
        self.leave(self.file("left.bin", bytes(MIB)))
        self.open()
        row = self.page.locator("#transfers li[data-state=unfinished]")
        row.wait_for()
        self.assertFalse(self.page.locator("#cancel-all").is_visible())
        self.page.route("**/-/uploads/*", lambda route: route.fulfill(status=423, body="ERROR - it is busy"))
        row.locator(".cancel").click()
        row.filter(has_text="It is busy.").wait_for()
        self.page.unroute("**/-/uploads/*")
        row.locator(".cancel").click()
        row.wait_for(state="detached")
        eventually("nothing is left", lambda: self.sent() == 0)


class TabTests(UploadCase):
    """Two tabs."""

    # The name is taken in one of them: that is an answer of 409.
    failures = True

    def test_one_name(self) -> None:
        """Two files of one name from two tabs at once: each is complete, under a name of its own."""
        contents = [random.Random(seed).randbytes(2 * MIB) for seed in (1, 2)]
        files = [self.file(f"{number}/same.bin", content) for number, content in enumerate(contents)]
        self.start()
        tabs = [self.open(), self.open(page=self.new_page())]
        for tab, file in zip(tabs, files, strict=True):
            self.slow(tab.page, MIB)
            tab.choose(file)
        eventually("one is complete", lambda: (self.root / "same.bin").exists())
        eventually("both are complete", lambda: self.renamed(tabs) and len(tree(self.root)) == 2)
        self.assertEqual(sorted(tree(self.root)), ["same (1).bin", "same.bin"])
        self.assertEqual({held for held in tree(self.root).values()}, set(contents))

    def renamed(self, tabs: list[Directory]) -> bool:
        """Answer the question of whichever tab asks: another name."""
        for tab in tabs:
            if tab.dialog.is_visible():
                tab.answer("rename")
            elif (retry := tab.page.locator("#transfers li[data-state=failed] .retry")).count():
                retry.first.click()
        return True


def _offset(request: Request) -> list[int]:
    """Where the part begins that this request sends."""
    return [int(request.headers["upload-offset"])] if request.method == "PATCH" else []
