"""Names and files that are meant to break the page: nothing of them runs, and each is shown as it is."""

from __future__ import annotations

import os

from tests.proof.browser_files import ACTIVE, LOADED, ODD_NAMES, SEEN_AS
from tests.proof.commands import eventually
from tests.proof.counts import SOAK, Tally
from tests.proof.page import Directory, PageCase, tree

#: Where one of them gets its way, the page's title says so, or something is asked for, or the console tells.
_RUN = "document.title='ran'"
_PAYLOADS = (
    f"<script>{_RUN}<",
    f"<script>{_RUN}<\u2215script>",
    f'"><script>{_RUN}<\u2215script>',
    f"'><img src=x onerror={_RUN}>",
    f"<img src=x onerror={_RUN}>",
    f'"onmouseover="{_RUN}" x="',
    f"' autofocus onfocus={_RUN} '",
    f"<svg onload={_RUN}>",
    f"<svg><animate onbegin={_RUN}>",
    f"<iframe srcdoc=<script>{_RUN}>",
    f"<details open ontoggle={_RUN}>",
    f"<body onload={_RUN}>",
    "<base href=http:example.com>",
    "<meta http-equiv=refresh content=0>",
    "<link rel=stylesheet href=x>",
    "<style>*{display:none}",
    "<form action=x><button>",
    "<template><script>",
    "<textarea><title>",
    "<plaintext>",
    "<!--",
    "]]>",
    "-->",
    f"javascript:{_RUN}",
    f"javascript:{_RUN}.txt",
    "data:text,html",
    "http:evil.example",
    "\\\\evil.example",
    f"${{{_RUN}}}",
    f'{{{{constructor.constructor("{_RUN}")()}}}}',
    "{% include x %}",
    "`${1}`",
    "__proto__",
    "constructor",
    "toString",
    "hasOwnProperty",
    "&lt;b&gt;",
    "&#60;b&#62;",
    "%3Cscript%3E",
    "?json=page#x",
    "?archive=zip",
    "\u200b",
    "\ufeffzero",
    "\u0300combining",
    "a\u0301\u0301\u0301\u0301\u0301\u0301\u0301\u0301\u0301\u0301b",
    "\U0001f469\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466" * 10,
    "\u202eexe.txt",
    "\u2066isolated",
    "\u2067\u2066nested\u2069",
    "\u0627\u0644\u0639 1 2 3.txt",
    "\x01\x02\x1b[31mred\x1b[0m",
    "\x07bell",
    "\r\nSet-Cookie: a=b",
    "line\u2028separator\u2029here",
    "x" * 255,
    "\u65e5" * 85,
    " ",
    "   leading",
    "trailing.   ",
    "CON",
    "NUL.txt",
    "-rf",
    "--help",
    "~root",
    "$(id)",
    "a;b|c&d",
)
#: What asks about an entry, and names it.
_QUESTIONS = ("#rename-menu > summary", "#move-menu > summary", "#delete", "#share")
#: And those that are hard to link to.
NAMES = tuple(os.fsencode(name) for name in _PAYLOADS) + ODD_NAMES
_SHOWN = Tally("hostile names and files shown by the page")
#: Characters that would be lost in a line, or turn it around: what is shown instead is not their own.
_HIDDEN = frozenset(map(chr, (*range(32), *range(127, 160), *range(0x202A, 0x202F), *range(0x2066, 0x206A))))


def seen(name: bytes) -> str | None:
    """How a reader must see a name; None where only this is asked, that nothing hidden is left in it."""
    if name in SEEN_AS:
        return SEEN_AS[name]
    text = name.decode()
    plain = all(sign.isprintable() or sign == " " for sign in text)
    return text if plain and not _HIDDEN & set(text) else None


class NameTests(PageCase):
    """A directory of such names."""

    def setUp(self) -> None:
        super().setUp()
        self.names = {name: number for number, name in enumerate(dict.fromkeys(NAMES))}
        for name, number in self.names.items():
            (self.root / os.fsdecode(name)).write_text(f"{number}")
        self.start("--names", "posix", "--hidden")
        self.assertGreater(len(self.names), 60)

    def texts(self, directory: Directory) -> dict[bytes, str]:
        """What is shown for each name."""
        found = zip(directory.names(), directory.rows.locator(".name").all_text_contents(), strict=True)
        return {os.fsencode(name): text for name, text in found}

    def assert_harmless(self) -> None:
        """Nothing has run, nothing was added to the page, no other address is shown."""
        self.assertNotIn("ran", self.page.title())
        added = "script:not([nonce]), svg, iframe, base, object, embed, style, #listing img"
        self.assertEqual(self.page.locator(added).count(), 0)
        self.assertTrue(self.page.url.startswith(self.url), self.page.url)

    def test_listing(self) -> None:
        """Each is there once, shown as it is, and its link leads to its file."""
        directory = self.open()
        shown = self.texts(directory)
        self.assertEqual(set(shown), set(self.names))
        for name, text in shown.items():
            self.assertEqual(_HIDDEN & set(text), set(), name)
            if (wanted := seen(name)) is not None:
                self.assertEqual(text, wanted, name)
        for name, number in self.names.items():
            href = directory.link(os.fsdecode(name)).get_attribute("href")
            answer = self.page.request.get(self.page.evaluate("href => new URL(href, location).href", href))
            self.assertEqual((answer.status, answer.text()), (200, f"{number}"), name)
            _SHOWN.add(1, "names")
        self.assert_harmless()

    def test_dialogs(self) -> None:
        """They are named in questions as they are: renamed, moved, shared, filtered, deleted."""
        (self.root / "to").mkdir()
        directory = self.open()
        for number, name in enumerate(map(os.fsencode, _PAYLOADS)):
            text, wanted = os.fsdecode(name), seen(name)
            directory.select(text)
            for press in _QUESTIONS if SOAK else (_QUESTIONS[number % len(_QUESTIONS)],):
                self.page.locator(press).click()
                directory.dialog.locator("form").wait_for()
                said = directory.dialog.text_content() or ""
                if wanted is not None:
                    self.assertIn(wanted, said, press)
                self.assertEqual(_HIDDEN - {"\n"} & set(said), set(), (name, press))
                self.page.keyboard.press("Escape")
                directory.dialog.wait_for(state="hidden")
            directory.row(text).locator("input[name=entry]").uncheck()
        self.assert_harmless()
        self.page.locator("#select-all").check()
        directory.row("to").locator("input[name=entry]").uncheck()
        self.page.locator("#move-menu > summary").click()
        directory.dialog.locator("input[name=to]").fill("to")
        directory.answer("move")
        directory.expect(["to"])
        self.assertEqual(len(list((self.root / "to").iterdir())), len(self.names))
        directory = self.open("to/")
        self.page.locator("#select-all").check()
        self.page.locator("#delete").click()
        directory.answer("delete")
        eventually("all are gone", lambda: tree(self.root) == {"to": None})
        self.assert_harmless()

    def test_uploads(self) -> None:
        """Uploaded under such names they are named right, while it goes on and when they are there."""
        here = self.base / "here"
        here.mkdir()
        files = []
        for name in map(os.fsencode, _PAYLOADS):
            (here / os.fsdecode(name)).write_text("new")
            files.append(here / os.fsdecode(name))
        (self.root / "new").mkdir()
        directory = self.open("new/")
        directory.drop(*files)
        eventually("all have come", lambda: len(list((self.root / "new").iterdir())) == len(files))
        self.assertEqual(set(tree(self.root / "new")), set(map(os.path.basename, map(str, files))))
        directory.expect_done()
        section = self.page.locator("#transfers")
        labels = (
            "section => Array.from(section.querySelectorAll('[aria-label]'), one => one.ariaLabel).join('')"
        )
        self.assertEqual(_HIDDEN & set(section.evaluate(labels) + section.text_content()), set())
        self.assert_harmless()


class FileTests(PageCase):
    """A directory of files that want to run something."""

    def test_preview(self) -> None:
        """Looked at one after the other in the page, none of them does."""
        for name, document in {**ACTIVE, **LOADED}.items():
            self.write(name, document.body)
        # Scripts and drawings under the names of other things.
        for suffix in ("png", "jpg", "mp4", "mp3", "pdf", "txt", "json", "csv"):
            self.write(f"inline.{suffix}", ACTIVE["inline.html"].body)
            self.write(f"drawing.{suffix}", ACTIVE["drawing.svg"].body)
        daemon = self.start()
        directory = self.open()
        links = directory.rows.filter(has=self.page.locator("a"))
        first = links.locator(
            "xpath=self::*[@data-kind='image' or @data-kind='text' or @data-kind='pdf']"
        ).first
        first.locator("a").click()
        following = self.page.locator("#next")
        following.wait_for()
        count = 1
        while following.is_enabled():
            following.click()
            count += 1
        _SHOWN.add(count, "files")
        self.assertGreater(count, 20)
        self.page.keyboard.press("Escape")
        self.assertEqual(self.page.evaluate("[document.title.includes('ran'), window.name]"), [False, ""])
        self.assertEqual(self.page.evaluate("localStorage.length"), 0)
        self.page.goto(f"{self.url}-/health?the-last-one")
        daemon.expect(r"GET /-/health\?the-last-one")
        self.assertNotIn("/beacon/", daemon.output)
