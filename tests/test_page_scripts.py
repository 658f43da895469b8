"""The scripts of the page: what of them needs no browser, by a program that runs JavaScript."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
from importlib import resources
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from fileexport.web.names import visible
from tests.test_vectors_node import node

TESTS = Path(__file__).with_name("page_scripts")
STATIC = Path(str(resources.files("fileexport.web") / "static"))
VENDORED = "tus.min.js"
#: SHA-256 of dist/tus.min.js in the npm package tus-js-client 4.3.1.
PUBLISHED = "8cbb1b63fccc3bba0ae73ad1deb160ce046c3750851d0c3e94921ae3ef070eb8"
#: A time zone that no machine here has by chance, and that is no whole number of hours from UTC.
ZONE = "Asia/Kathmandu"


def own_scripts() -> list[Path]:
    """The scripts that are ours."""
    return sorted(path for path in STATIC.glob("*.js") if path.name != VENDORED)


class ScriptTests(SynchronousTestCase):
    """The modules as they are served, in one run for all: starting node takes longer than the tests."""

    def setUp(self) -> None:
        """A directory in which node takes .js for modules, as the page does."""
        self.program = node()
        self.folder = Path(self.mktemp())
        shutil.copytree(STATIC, self.folder / "static")
        (self.folder / "package.json").write_text('{"type": "module"}')

    def run_lines(self, *lines: str) -> str:
        """Run a module of these lines; what it says is the failure."""
        (self.folder / "run.mjs").write_text("\n".join(lines))
        run = subprocess.run(
            [self.program, "run.mjs"],
            cwd=self.folder,
            env={**os.environ, "TZ": ZONE, "NO_COLOR": "1"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        self.assertEqual(run.returncode, 0, run.stdout + run.stderr)
        return run.stdout

    def test_pure_modules(self) -> None:
        """All that needs no browser does what its tests in `page_scripts` say."""
        names = sorted(path.name for path in TESTS.glob("*.test.mjs"))
        for name in names:
            shutil.copy(TESTS / name, self.folder)
        said = self.run_lines(*(f'import "./{name}";' for name in names))
        passed = re.search(r"(?m)^\W*pass ([0-9]+)", said)
        assert passed is not None, said
        self.assertGreaterEqual(int(passed[1]), 4 * len(names), "tests were left out")

    def test_linking(self) -> None:
        """Every script can be read, and finds in the others what it imports; page.js then wants a page."""
        names = [script.name for script in own_scripts()]
        said = self.run_lines(
            f"for (const name of {json.dumps(names)})",
            "  await import(`./static/${name}`).catch((error) => console.log(name, error.name));",
        )
        self.assertEqual(said, "page.js ReferenceError\n")

    def test_visible(self) -> None:
        """Every character is shown by the page as by the server, alone and among others."""
        codes = [*range(0x3000), *range(0xD800, 0xE000), *range(0xF000, 0x10400), 0x1F98A, 0x10FFFF]
        said = self.run_lines(
            'import { visible } from "./static/names.js";',
            f"const codes = {json.dumps(codes)};",
            "const shown = codes.map((code) => visible(`a${String.fromCodePoint(code)}b`));",
            "console.log(JSON.stringify(shown));",
        )
        self.assertEqual(json.loads(said), [visible(f"a{chr(code)}b") for code in codes])


class SourceTests(SynchronousTestCase):
    """What the scripts must not do, seen in their text."""

    def test_nothing_reads_text_as_code(self) -> None:
        """No script makes HTML, styles or code of a text, and none writes to the console."""
        html = r"(?:inner|outer)HTML|insertAdjacentHTML|document\.write|srcdoc"
        banned = re.compile(html + r"|\beval\b|new Function|console\.|\"style\"")
        for script in own_scripts():
            self.assertEqual(banned.findall(script.read_text("utf-8")), [], script.name)

    def test_imports(self) -> None:
        """A script imports its neighbours by a relative name and nothing else, and all of them exist."""
        for script in own_scripts():
            text = script.read_text("utf-8")
            for target in re.findall(r"(?:\bfrom|\bimport) \"([^\"]+)\"|\bimport\(\"([^\"]+)\"\)", text):
                name = "".join(target)
                self.assertTrue(name.startswith("./"), f"{script.name}: {name}")
                self.assertTrue((STATIC / name).is_file(), f"{script.name}: {name}")

    def test_exports(self) -> None:
        """What a script exports is used by another, or by a test."""
        scripts = {path: path.read_text("utf-8") for path in (*own_scripts(), *TESTS.glob("*.mjs"))}
        for script in own_scripts():
            others = "\n".join(text for path, text in scripts.items() if path != script)
            for name in re.findall(r"(?m)^export (?:async )?(?:function|class|const) (\w+)", scripts[script]):
                self.assertRegex(others, rf"\b{name}\b", script.name)

    def test_styles(self) -> None:
        """No class is styled that neither a template nor a script gives to anything."""
        texts = [*(STATIC.parent / "templates").glob("*.html"), *own_scripts()]
        given = " ".join(path.read_text("utf-8") for path in texts)
        for sheet in sorted(STATIC.glob("*.css")):
            for name in set(re.findall(r"\.([a-z][a-z-]*)(?=[^{};]*\{)", sheet.read_text("utf-8"))):
                self.assertRegex(given, rf"(?<![\w-]){name}(?![\w-])", sheet.name)

    def test_vendored(self) -> None:
        """tus-js-client is what was published, and its licence is beside it."""
        self.assertEqual(hashlib.sha256((STATIC / VENDORED).read_bytes()).hexdigest(), PUBLISHED)
        self.assertIn("MIT", (STATIC / "tus.LICENSE.txt").read_text("utf-8"))
