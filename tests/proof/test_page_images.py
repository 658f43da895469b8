"""Every state of the page: axe-core has nothing against it, and the manual's images are taken of it."""

from __future__ import annotations

import os
from typing import Any, ClassVar

from playwright.sync_api import Page

from tests.proof import node
from tests.proof.axe import violations
from tests.proof.browser_files import WEBM, png
from tests.proof.counts import Tally
from tests.proof.page import Directory, PageCase
from tests.proof.process import MIB
from tests.screenshots import IMAGES

TOKEN = "a-token-that-may-do-everything-7"
#: Whether the images are to be taken again.
TAKES = bool(os.environ.get("FILEEXPORT_SCREENSHOTS"))
_STATES = Tally("states of the page without a violation")
#: An afternoon of the year 2026.
_THEN = 1_790_000_000
#: Images are the same wherever they are taken.
_LOCAL = {"locale": "en-GB", "timezone_id": "UTC"}
#: Names, and bytes of what seems to be in them.
_SAMPLE = {
    "Photos": None,
    "Reports 2026": None,
    "backup-1.tar.gz": 734_003_200,
    "backup-2.tar.gz": 741_200_384,
    "backup-10.tar.gz": 803_919_872,
    "Concert.mp4": 1_288_490_188,
    "Interview.mp3": 48_234_496,
    "notes.txt": 0,
    "picture.png": 0,
    "plan.pdf": 324_608,
    "Zürich – 日本.csv": 18_432,
}


class StateCase(PageCase):
    """Looks at states of the page, light and dark."""

    if node.MISSING is not None:
        skip = node.MISSING

    context_options: ClassVar[dict[str, Any]] = {
        "viewport": {"width": 1000, "height": 640},
        **_LOCAL,
    }

    def setUp(self) -> None:
        super().setUp()
        self.page.emulate_media(reduced_motion="reduce")

    def sample(self) -> None:
        """Fill the root with something that is good to look at."""
        for name, size in _SAMPLE.items():
            path = self.root / name
            if size is None:
                path.mkdir()
            else:
                path.touch()
                os.truncate(path, size)
        self.write("notes.txt", b"Bring the <keys>.\n" * 40)
        self.write("picture.png", png(640, 400))
        self.write("Photos/moving.webm", WEBM.read_bytes())
        for number, name in enumerate(_SAMPLE):
            os.utime(self.root / name, (_THEN - number * 100_000,) * 2)

    def look(self, state: str, page: Page | None = None, image: str = "") -> None:
        """Ask axe about the state that the page is in, in both colours; take an image where one is wanted."""
        page = page or self.page
        for scheme in ("dark", "light"):
            page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
            self.assertEqual(violations(page), [], f"{state}, {scheme}")
            _STATES.add(1)
            name = image.replace(".png", "-dark.png") if scheme == "dark" else image
            if TAKES and image and (scheme == "light" or image == "directory.png"):
                IMAGES.mkdir(exist_ok=True)
                page.screenshot(path=IMAGES / name, animations="disabled", caret="hide")


class ControlTests(StateCase):
    """Whether axe finds anything at all."""

    def test_control(self) -> None:
        """A field without a label, and a text that can hardly be read, are found in the page as it is."""
        self.sample()
        self.start()
        self.open()
        self.page.evaluate(
            """() => {
                const text = Object.assign(document.createElement('p'), {textContent: 'pale'});
                text.style.color = '#aaa';
                text.style.backgroundColor = '#fff';
                document.querySelector('main').append(document.createElement('input'), text);
            }"""
        )
        found = {sentence.split()[0] for sentence in violations(self.page)}
        self.assertEqual(found, {"color-contrast", "label"})


class DirectoryTests(StateCase):
    """What whoever may do everything sees."""

    def test_directory(self) -> None:
        """The directory: by itself, with a selection, each menu and question, filtered to nothing, empty."""
        self.sample()
        self.start()
        directory = self.open()
        self.look("a directory", image="directory.png")
        for menu in ("upload", "new-directory", "share", "download"):
            self.page.locator(f"#{menu}-menu > summary").click()
            self.look(f"the menu {menu}")
            self.page.locator(f"#{menu}-menu > summary").click()
        directory.select("plan.pdf")
        self.look("a selection")
        for press in ("#rename-menu > summary", "#move-menu > summary", "#delete", "#compress"):
            self.page.locator(press).click()
            directory.dialog.locator("form").wait_for()
            self.look(f"the question of {press}")
            self.page.keyboard.press("Escape")
            directory.dialog.wait_for(state="hidden")
        self.page.locator("#share").click()
        directory.answer("share")
        self.page.locator("#share-link").wait_for()
        link = "https://files.example/-/share/MkxHa2lZd0tQ…"
        self.page.locator("#share-link").evaluate("(field, link) => { field.value = link }", link)
        self.look("a link", image="share.png")
        self.page.keyboard.press("Escape")
        self.page.locator("#filter input[type=search]").fill("nothing has this name")
        self.page.locator("#empty").wait_for()
        self.look("nothing found")
        (self.root / "empty").mkdir()
        self.open("empty/")
        self.look("an empty directory")

    def test_previews(self) -> None:
        """Previews, and an archive that is made."""
        self.sample()
        self.start()
        directory = self.open()
        for name in ("notes.txt", "picture.png"):
            directory.link(name).click()
            self.page.locator("#next").wait_for()
            self.look(f"the preview of {name}")
            self.page.keyboard.press("Escape")
            directory.dialog.wait_for(state="hidden")
        directory.select("notes.txt")
        self.page.locator("#compress").click()
        directory.answer("compress")
        self.page.locator("#jobs li a").wait_for()
        self.look("an archive that is done")

    def test_uploads(self) -> None:
        """Uploads under way, paused, done, and a question about a name that is taken."""
        self.failures = True
        self.sample()
        here = self.base / "here"
        here.mkdir()
        files = []
        for name, size in (
            ("Holiday film.mkv", 24),
            ("Lecture 7.pdf", 12),
            ("dataset.zip", 48),
            ("notes.txt", 1),
        ):
            (here / name).touch()
            os.truncate(here / name, size * MIB)
            files.append(here / name)
        self.start()
        directory = self.open()
        session = self.context.new_cdp_session(self.page)
        session.send("Network.enable")
        slow = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 4 * MIB}
        session.send("Network.emulateNetworkConditions", slow)
        directory.choose(*files)
        if directory.dialog.locator("form").is_visible() or self._asks(directory):
            self.look("a name that is taken")
            directory.answer("rename")
        self.page.wait_for_function(
            """() => Array.from(document.querySelectorAll('#transfers progress'))
                .filter(bar => bar.value > 0.1 * bar.max).length >= 2"""
        )
        self.look("uploads under way", image="uploads.png")
        self.page.locator("#pause-all").click()
        self.page.locator("#transfers li[data-state=paused]").first.wait_for()
        self.look("uploads that are paused")
        self.page.locator("#cancel-all").click()
        self.page.locator("#transfers li[data-state=paused]").first.wait_for(state="detached")

    def _asks(self, directory: Directory) -> bool:
        directory.dialog.locator("form").wait_for()
        return True


class PhoneTests(StateCase):
    """A phone."""

    context_options: ClassVar[dict[str, Any]] = {
        "viewport": {"width": 360, "height": 740},
        "device_scale_factor": 2,
        "has_touch": True,
        **_LOCAL,
    }

    def test_phone(self) -> None:
        """A directory, with a selection, and a question: nothing is wider than the phone."""
        self.sample()
        self.start()
        directory = self.open()
        self.look("a phone", image="phone.png")
        self.assert_fits()
        directory.select("plan.pdf")
        self.look("a phone, something selected")
        self.assert_fits()
        self.page.locator("#delete").click()
        directory.dialog.locator("form").wait_for()
        self.look("a phone, a question")
        self.assert_fits()

    def assert_fits(self) -> None:
        width = self.page.evaluate("document.documentElement.scrollWidth")
        self.assertLessEqual(width, 360)


class PlainPageTests(StateCase):
    """Pages without scripts: they are there for everybody."""

    failures = True

    def test_pages(self) -> None:
        """Signing in, an error, shared links, the page of a share, a confirmation, what became of a form."""
        self.sample()
        tokens = self.base / "tokens"
        tokens.touch(0o600)
        tokens.write_text(f"{TOKEN} name=ann\n")
        self.start("--token-file", str(tokens), "--anonymous", "none")
        self.page.goto(self.url)
        self.look("signing in", image="sign-in.png")
        self.page.locator("input[name=token]").fill("a-token-that-is-wrong-0")
        with self.page.expect_navigation():
            self.page.locator("main form button").first.click()
        self.look("a wrong token")
        self.page.locator("input[name=token]").fill(TOKEN)
        with self.page.expect_navigation():
            self.page.locator("main form button").first.click()
        directory = Directory(self.page)
        directory.ready()
        self.look("signed in")
        directory.select("Photos")
        self.page.locator("#share").click()
        directory.answer("share")
        link = self.page.locator("#share-link").input_value()
        self.page.goto(f"{self.url}-/shares")
        self.look("shared links")
        self.page.goto(link)
        self.look("the page of a share")
        self.page.goto(f"{self.url}no-such-thing")
        self.look("an error")
        self.page.goto(f"{self.url}-/sign-in")
        self.look("signing in again")

    def test_forms(self) -> None:
        """A confirmation, and what became of a form, as browsers without scripts get them."""
        self.sample()
        self.start()
        self.open()
        for action, fields in (
            ("-/remove/", {"entry": "plan.pdf"}),
            ("-/move/", {"entry": "plan.pdf", "name": "notes.txt"}),
        ):
            with self.page.expect_navigation():
                self.page.evaluate(
                    """([action, fields]) => {
                        const form = document.createElement('form');
                        Object.assign(form, {method: 'post', action});
                        for (const [name, value] of Object.entries(fields)) {
                            const field = Object.assign(document.createElement('input'), {name, value});
                            form.append(field);
                        }
                        document.body.append(form);
                        HTMLFormElement.prototype.submit.call(form);
                    }""",
                    [f"{self.url}{action}", fields],
                )
            self.look(action)
            self.open()
