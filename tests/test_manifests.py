"""Folders on the wire: lines into columns and back, packed into messages, and what a liar puts there."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fileexport.errors import CorruptedResponse
from fileexport.paths import RelPath
from fileexport.wire import messages as m
from fileexport.wire.frames import HEADER_SIZE, LARGEST, Frame, FrameType, Limits
from tests.vectors import compare, plain

quick = settings(max_examples=200, deadline=None, database=None)
PATH, TOP = RelPath(["a", "\udcff b"]), m.Top(5, 0o755)
WHEN = 1_795_000_000_123_456_789
LINES: list[m.Line] = [
    ("a.txt", "f", 5, WHEN, 0o644, ""),
    ("link", "l", 0, -1, 0, "../elsewhere/\udcff"),
    ("\udcff b", "d", 0, 0, 0o755, ""),
    ("pipe", "o", 0, 1, 0o600, ""),
    ("second", "l", 0, 2, 0o777, "."),
]
NAMES = (
    st.binary(min_size=1, max_size=12)
    .filter(lambda name: not set(name) & {0, 47} and name not in (b".", b".."))
    .map(os.fsdecode)
)


@st.composite
def lines(draw: st.DrawFn, most: int = 40) -> list[m.Line]:
    """What may be in a directory."""
    found: list[m.Line] = []
    for name in draw(st.lists(NAMES, max_size=most, unique=True)):
        kind = draw(st.sampled_from("fdlo"))
        size = draw(st.integers(0, 2**63 - 1)) if kind == "f" else 0
        target = (
            "" if kind != "l" else os.fsdecode(draw(st.binary(min_size=1, max_size=30)).replace(b"\0", b"x"))
        )
        found.append(
            (name, kind, size, draw(st.integers(-(2**62), 2**62)), draw(st.integers(0, 0o777)), target)
        )
    return found


def sent(folder: m.Folder) -> m.Folder:
    """The folder as the other side reads it."""
    payload = m.encode(m.ManifestPart([folder]), 1)[HEADER_SIZE:]
    part = m.decode(Frame(FrameType.REPLY, 1, memoryview(payload)))
    assert isinstance(part, m.ManifestPart)
    return part.folders[0]


def parts(listed: Iterable[m.Listed | None], most: int = LARGEST.control) -> list[m.ManifestPart]:
    """The messages, each of which its receiver takes."""
    found = [part for part in m.parts_of(listed, TOP, most) if part is not None]
    for part in found:
        m.encode(part, 1)
    return found


class FolderTests(SynchronousTestCase):
    """One directory."""

    @quick
    @given(lines())
    def test_there_and_back(self, found: list[m.Line]) -> None:
        """Whatever is in a directory comes back as it was, also over the wire."""
        folder = m.folder_of(PATH, found, code=7, message="denied", omitted=3)
        self.assertEqual(m.folder_rows(folder), found)
        self.assertEqual(sent(folder), folder)
        self.assertEqual((folder.path, folder.code, folder.message, folder.omitted), (PATH, 7, "denied", 3))

    def test_empty(self) -> None:
        """An empty directory is a folder without names."""
        self.assertEqual(m.folder_rows(sent(m.folder_of(PATH, []))), [])
        self.assertEqual(m.folder_of(PATH, []), m.Folder(PATH))

    def test_lies(self) -> None:
        """What is no directory's content breaks the connection."""
        good = m.folder_of(PATH, LINES)
        self.assertEqual(m.folder_rows(good), LINES)
        for name, changed in lies().items():
            bad = msgspec.structs.replace(good, **changed)
            with self.assertRaises(CorruptedResponse, msg=name):
                m.folder_rows(bad)

    @quick
    @given(
        st.binary(max_size=30),
        st.binary(max_size=9) | st.text("fdlo", max_size=9).map(str.encode),
        st.lists(st.integers(0, 2), max_size=9),
        st.lists(st.binary(min_size=1, max_size=4), max_size=3),
    )
    def test_anything(self, names: bytes, kinds: bytes, sizes: list[int], targets: list[bytes]) -> None:
        """Any columns give lines that say the same again, or `CorruptedResponse`."""
        folder = m.Folder(PATH, names, kinds, sizes, sizes, sizes, targets)
        try:
            found = m.folder_rows(folder)
        except CorruptedResponse:
            return
        self.assertEqual(m.folder_of(PATH, found), folder)
        self.assertTrue(all(RelPath([line[0]]) for line in found))

    def test_vectors(self) -> None:
        """tests/vectors/folders.json: folders, and the lines they say or that they are fatal."""
        good = m.folder_of(PATH, LINES)
        cases: dict[str, m.Folder] = {
            "all kinds": good,
            "empty": m.Folder(PATH),
            "not readable": m.Folder(PATH, code=7, message="permission denied", omitted=2),
            **{name: msgspec.structs.replace(good, **changed) for name, changed in lies().items()},
        }
        rows = []
        for name, folder in cases.items():
            said = msgspec.msgpack.encode(folder, enc_hook=spell)
            row: dict[str, Any] = {"name": name, "folder": plain(msgspec.msgpack.decode(said))}
            try:
                row["lines"] = [
                    [plain(os.fsencode(one[0])), *map(plain, one[1:5]), plain(os.fsencode(one[5]))]
                    for one in m.folder_rows(folder)
                ]
            except CorruptedResponse:
                row["error"] = "CorruptedResponse"
            rows.append(row)
        compare(self, "folders.json", rows)


class PartTests(SynchronousTestCase):
    """A whole listing."""

    @quick
    @given(st.lists(lines(6), max_size=12), st.integers(1, 4000))
    def test_all_is_said(self, directories: list[list[m.Line]], most: int) -> None:
        """Whatever the room in a message, every line is said once, in its order, and the top first."""
        listed = [m.Listed(RelPath([str(n)]), found) for n, found in enumerate(directories)]
        found = parts(listed, most)
        again: dict[RelPath, list[m.Line]] = {}
        for part in found:
            for folder in part.folders:
                again.setdefault(folder.path, []).extend(m.folder_rows(folder))
        self.assertEqual(again, {one.path: list(one.lines) for one in listed})
        self.assertEqual([part.top for part in found], [TOP, *[None] * (len(found) - 1)][: len(found)])

    def test_bounds(self) -> None:
        """A directory of any size becomes messages that the other side takes, with long names too."""
        many: list[m.Line] = [(f"{n:0255}", "f", 2**62, WHEN, 0o777, "") for n in range(3000)]
        found = parts([m.Listed(PATH, many, 7, "denied", 2)])
        self.assertEqual(
            [line for part in found for one in part.folders for line in m.folder_rows(one)], many
        )
        folders = [one for part in found for one in part.folders]
        self.assertEqual({(one.code, one.message, one.omitted) for one in folders[:-1]}, {(0, "", 0)})
        self.assertEqual((folders[-1].code, folders[-1].message, folders[-1].omitted), (7, "denied", 2))
        for part in found:
            self.assertLessEqual(sum(len(one.kinds) for one in part.folders), m.MAX_BATCH)
        links: list[m.Line] = [(str(n), "l", 0, 0, 0, "x" * m.MAX_TARGET) for n in range(200)]
        self.assertGreater(len(parts([m.Listed(PATH, links)])), 3)

    def test_small_peer(self) -> None:
        """A peer that takes little gets little, one entry at a time where it must be."""
        found = parts([m.Listed(PATH, LINES)], 250)
        for part in found:
            m.encode(part, 1, Limits(400, 512))
        self.assertGreater(len(found), 1)

    def test_many_directories(self) -> None:
        """Many small directories share a message, up to its count."""
        listed = [m.Listed(RelPath([str(n)]), ()) for n in range(3000)]
        found = parts(listed)
        self.assertEqual([len(part.folders) for part in found], [1024, 1024, 952])

    def test_turns(self) -> None:
        """None is handed on where it stood, before what waits to be complete."""
        found = list(m.parts_of([None, m.Listed(PATH, ()), None, m.Listed(PATH, ())], TOP, 9999))
        self.assertEqual(found, [None, None, m.ManifestPart([m.Folder(PATH), m.Folder(PATH)], TOP)])


def lies() -> dict[str, dict[str, Any]]:
    """Fields of the folder that says `LINES`, each of which makes it a lie."""
    many = [0] * 4
    return {
        "a name with a slash": {"names": b"a/b\0link\0c\0pipe\0second"},
        "a way up": {"names": b"..\0link\0c\0pipe\0second"},
        "a dot": {"names": b".\0link\0c\0pipe\0second"},
        "an empty name": {"names": b"a\0\0c\0pipe\0second"},
        "an empty name at the end": {"names": b"a\0link\0c\0pipe\0"},
        "a long name": {"names": b"a\0link\0c\0pipe\0" + b"x" * 256},
        "a name twice": {"names": b"a\0link\0a\0pipe\0second"},
        "a name too many": {"names": b"a\0link\0c\0pipe\0second\0third"},
        "no names": {"names": b""},
        "a kind that is none": {"kinds": b"fldxl"},
        "a kind too few": {"kinds": b"fldo"},
        "a kind outside ASCII": {"kinds": b"fld\xffl"},
        "sizes of others": {"sizes": many},
        "times of others": {"mtimes": many},
        "modes of others": {"modes": many},
        "a size of a directory": {"sizes": [5, 0, 1, 0, 0]},
        "a target too few": {"targets": [b"x"]},
        "a target too many": {"targets": [b"x"] * 3},
        "a target with NUL": {"targets": [b"x\0", b"x"]},
    }


def spell(value: object) -> object:
    """A path as bytes."""
    assert isinstance(value, RelPath)
    return os.fsencode("/".join(value.parts))
