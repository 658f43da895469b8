"""The vectors and the page are read by a program that shares no code with ours: a decoder in JavaScript."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import SkipTest

from twisted.trial.unittest import SynchronousTestCase

from tests.vectors import HERE

SCRIPT = HERE / "read_vectors.mjs"
PAGE = HERE.parent.parent / "docs" / "protocol.md"


def node() -> str:
    """The program that runs JavaScript: of this machine, or the one that playwright brings."""
    found = shutil.which("node")
    if found is not None:
        return found
    spec = importlib.util.find_spec("playwright")
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        bundled = Path(folder, "driver", "node")
        if os.access(bundled, os.X_OK):
            return str(bundled)
    raise SkipTest("neither node nor playwright is here: nothing reads the vectors in another language")


def ran(folder: Path = HERE, page: Path = PAGE) -> subprocess.CompletedProcess[str]:
    """The decoder's run."""
    command = [node(), str(SCRIPT), str(folder), str(page)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def flipped(digits: str, place: int) -> str:
    """Hexadecimal digits with one of them changed."""
    return digits[:place] + ("0" if digits[place] != "0" else "1") + digits[place + 1 :]


def change(path: str, *keys: Any, to: Callable[[Any], Any]) -> tuple[str, Callable[[Any], None]]:
    """A change of one value in a file of vectors."""

    def apply(rows: Any) -> None:
        holder = rows
        for key in keys[:-1]:
            holder = holder[key]
        holder[keys[-1]] = to(holder[keys[-1]])

    return path, apply


#: One change each, which the decoder has to see.
CHANGES = (
    change("frames.json", 1, "hex", to=lambda digits: flipped(digits, 2)),
    change("frames.json", 2, "frames", 0, "payload", to=lambda digits: flipped(digits, 0)),
    change("frames.json", -1, "error", to=lambda _: None),
    change("messages.json", 0, "value", "version", to=lambda number: number + 1),
    change("messages.json", 0, "hex", to=lambda digits: digits + "00"),
    change("messages.json", 4, "hex", to=lambda digits: flipped(digits, 60)),
    change("bad-messages.json", 0, "error", to=lambda _: "BadRequestError"),
    change("bad-messages.json", 5, "payload", to=lambda _: "82a26f70a473746174a470617468c40161"),
    change("conversations.json", 0, "steps", 2, "frames", 0, "stream", to=lambda number: number + 1),
    change("conversations.json", 0, "token", to=lambda token: token + "x"),
    change("conversations.json", 1, "steps", to=lambda steps: steps[:-2]),
    change("conversations.json", 2, "steps", to=lambda steps: steps[:3] + steps[4:]),
    change("conversations.json", 3, "binding", to=lambda _: "00"),
    change("conversations.json", 4, "broken", to=lambda _: False),
    change("conversations.json", 5, "steps", to=lambda steps: steps[:-1]),
    change("folders.json", 0, "folder", 1, "bin", to=lambda digits: flipped(digits, 0)),
    change("folders.json", 0, "lines", 1, 5, to=lambda _: {"bin": ""}),
    change("folders.json", 1, "lines", to=lambda _: [[]]),
    change("folders.json", -1, "error", to=lambda _: None),
    change("chunks.json", 0, "chunks", 1, 0, to=lambda size: size + 1),
    change("chunks.json", 1, "chunks", 0, 1, to=lambda digits: flipped(digits, 0)),
    change("chunks.json", 2, "average", to=lambda _: 32768),
    change("conversations.json", 6, "steps", to=lambda steps: steps[:-3] + steps[-2:]),
    change("conversations.json", 7, "broken", to=lambda _: False),
    change("proofs.json", 0, "server_proof", to=lambda digits: flipped(digits, 63)),
    change("proofs.json", 3, "binding", to=lambda digits: flipped(digits, 0)),
)


class NodeTests(SynchronousTestCase):
    """tests/vectors/read_vectors.mjs."""

    def test_agrees(self) -> None:
        """It agrees with every vector there is."""
        count = sum(len(json.loads(path.read_text("utf-8"))) for path in HERE.glob("*.json"))
        result = ran()
        self.assertEqual((result.stdout, result.stderr), (f"{count} vectors agree\n", ""))
        self.assertEqual(result.returncode, 0)

    def test_sees_a_changed_vector(self) -> None:
        """A vector that was changed in one place makes it fail, and it names the file."""
        for number, (name, apply) in enumerate(CHANGES):
            folder = self.copied()
            rows = json.loads((folder / name).read_text("utf-8"))
            apply(rows)
            (folder / name).write_text(json.dumps(rows), "utf-8")
            result = ran(folder)
            self.assertEqual((result.returncode, result.stdout), (1, ""), f"change {number} of {name}")
            self.assertIn(f"disagreement: {name}, ", result.stderr)

    def test_sees_a_missing_file(self) -> None:
        """A file of vectors that is missing, or that it does not know, makes it fail."""
        folder = self.copied()
        (folder / "proofs.json").rename(folder / "more.json")
        self.assertEqual(ran(folder).returncode, 1)

    def test_reads_the_page(self) -> None:
        """It judges by the page's tables: a bound or a turn that is changed there makes it fail."""
        text = PAGE.read_text("utf-8")
        changes = {
            r"`nonce` bin 32": "`nonce` bin 31",
            r"\| HELLO → GREETED, GOAWAY → CLOSED \|": "| GOAWAY → CLOSED |",
            r"\| `list` \| none \| `entries` \|": "| `list` | none | `hashes` |",
            r"`0x0000d90303537000`": "`0x0000d90303537001`",
            r"× CopyRange": "× Span",
            r"\| `write` \| DATA, COPY \|": "| `write` | DATA |",
            r"in at most 64 names of 255": "in at most 1 names of 255",
        }
        for number, (pattern, replacement) in enumerate(changes.items()):
            changed, count = re.subn(pattern, replacement, text)
            self.assertGreater(count, 0, pattern)
            page = Path(self.mktemp())
            page.write_text(changed, "utf-8")
            self.assertEqual(ran(page=page).returncode, 1, f"change {number} of the page")

    def copied(self) -> Path:
        """A directory with all vectors."""
        folder = Path(self.mktemp())
        folder.mkdir(parents=True)
        for path in HERE.glob("*.json"):
            shutil.copy(path, folder)
        return folder
