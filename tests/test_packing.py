"""Archives made in the background: complete, reproducible, watched."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import socket
import stat
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from fileexport.disk.archive import Form
from fileexport.disk.deflate import Threads
from fileexport.disk.jail import Jail, View
from fileexport.disk.packing import SUMS, Packing, packed, sums_line, total
from fileexport.disk.trees import OneFile, Tree, TreeForm, Unreadable
from fileexport.errors import ChangedWhileRead, FileNameError, JobCancelled
from fileexport.paths import MAX_DEPTH, RESERVED, RelPath
from tests.watched import forbid, open_descriptors, unprivileged

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

FORMS = (TreeForm.TAR, TreeForm.TAR_GZ, TreeForm.TAR_ZST, TreeForm.ZIP)
LARGE = 3 << 20
P = RelPath.parse


class Watching:
    """Adds up what it is told; `then` is called at every check."""

    def __init__(self, then: Callable[[], object] = lambda: None) -> None:
        self.bytes = self.files = 0
        self.skipped: dict[str, str] = {}
        self.then = then

    def check(self) -> None:
        self.then()

    def advance(self, nbytes: int = 0, files: int = 0) -> None:
        self.bytes += nbytes
        self.files += files

    def left_out(self, name: str, why: str) -> None:
        self.skipped[name] = why


def unpacked(form: TreeForm, data: bytes) -> dict[str, bytes | None]:
    """What Python's own modules read out of an archive, in its order; None is a directory."""
    if form is TreeForm.ZIP:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            assert archive.testzip() is None
            return {
                info.filename.rstrip("/"): None if info.is_dir() else archive.read(info)
                for info in archive.infolist()
            }
    if form is TreeForm.TAR_GZ:
        data = gzip.decompress(data)
    if form is TreeForm.TAR_ZST:
        data = zstd.decompress(data)
    found: dict[str, bytes | None] = {}
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        for member in tar:
            content = tar.extractfile(member)
            found[member.name] = content.read() if content else None
    return found


class PackingCase(SynchronousTestCase):
    """Has a directory with files of some sizes and what is no file; nothing may stay open or staged."""

    def setUp(self) -> None:
        self.root = Path(self.mktemp()).absolute()
        self.top = self.root / "top"
        (self.top / "sub" / "hollow").mkdir(parents=True)
        self.files = {
            "a.txt": b"hello\n",
            "empty": b"",
            "sub/block": b"b" * 512,
            "sub/large": os.urandom(1 << 20) + bytes(LARGE - (1 << 20)),
            "sub/" + "n" * 200: b"long name",
            "zz été": b"last",
        }
        for name, content in self.files.items():
            (self.top / name).write_bytes(content)
            os.utime(self.top / name, (1_700_000_000, 1_700_000_000))
        self.before = open_descriptors()
        self.threads = set(threading.enumerate())
        self.addCleanup(self.nothing_stays)
        self.jail = Jail(str(self.root))
        self.addCleanup(self.jail.close)

    def nothing_stays(self) -> None:
        self.assertEqual(open_descriptors() - self.before, set())
        self.assertEqual(set(threading.enumerate()) - self.threads, set())
        staging = self.root / RESERVED
        self.assertEqual(os.listdir(staging) if staging.exists() else [], [])

    def tree(self, *, hidden: bool = True) -> Tree:
        """The directory `top`."""
        return Tree(self.jail, View(hidden=hidden), P("top"), "top")

    def pack(
        self,
        form: TreeForm | Form,
        tree: Tree | None = None,
        watching: Watching | None = None,
        *,
        threads: int = 2,
        sums: bool = False,
    ) -> bytes:
        """The whole archive."""
        spill = partial(self.jail.stage, View(), P("x"))
        with closing(Threads(threads)) as shared:
            packing = Packing(form, shared, sums, spill)
            return b"".join(packed(tree or self.tree(), packing, watching or Watching()))

    def expected(self) -> dict[str, bytes | None]:
        """What belongs into the archive; None is a directory."""
        found: dict[str, bytes | None] = {f"top/{name}": data for name, data in self.files.items()}
        return {**found, "top/sub": None, "top/sub/hollow": None}


class ContentTests(PackingCase):
    """What is in an archive."""

    def test_tree(self) -> None:
        """Every form holds every file with its content, whatever the number of threads."""
        for form in FORMS:
            for threads in (0, 1, 3):
                self.assertEqual(unpacked(form, self.pack(form, threads=threads)), self.expected(), form)

    def test_order_and_same_bytes(self) -> None:
        """Members come by name, and the same tree gives the same bytes, however many threads there are.

        Only a zstd frame that was made without any is another one.
        """
        for form in FORMS:
            data = self.pack(form, sums=True)
            self.assertEqual(list(unpacked(form, data)), [*sorted(self.expected()), SUMS])
            for threads in (0, 1, 2, 4):
                again = self.pack(form, threads=threads, sums=True)
                if threads or form is not TreeForm.TAR_ZST:
                    self.assertEqual(again, data, (form, threads))

    def test_nobodys(self) -> None:
        """Members have time and permissions, and belong to nobody; a gzip header has no time."""
        (self.top / "a.txt").chmod(0o4751)
        data = self.pack(TreeForm.TAR_GZ)
        self.assertEqual(data[4:8], bytes(4))
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            member = archive.getmember("top/a.txt")
        self.assertEqual((member.mtime, member.mode), (1_700_000_000, 0o751))
        self.assertEqual((member.uid, member.gid, member.uname, member.gname), (0, 0, "", ""))
        with zipfile.ZipFile(io.BytesIO(self.pack(TreeForm.ZIP))) as zipped:
            self.assertEqual(zipped.getinfo("top/a.txt").external_attr >> 16, stat.S_IFREG | 0o751)

    def test_one_file(self) -> None:
        """A single file is one member with its own name, or bare."""
        tree = OneFile(self.jail, View(), P("top/sub/large"), "large")
        content = self.files["sub/large"]
        for form in FORMS:
            self.assertEqual(unpacked(form, self.pack(form, tree)), {"large": content})
        self.assertEqual(gzip.decompress(self.pack(Form.GZ, tree)), content)
        self.assertEqual(zstd.decompress(self.pack(Form.ZST, tree)), content)
        self.assertEqual(total(tree)[:2], (LARGE, 1))

    def test_hidden_names(self) -> None:
        """What the caller may not see is not in it."""
        (self.top / ".hidden").touch()
        (self.top / RESERVED).mkdir()
        with_it = self.expected() | {"top/.hidden": b""}
        self.assertEqual(unpacked(TreeForm.ZIP, self.pack(TreeForm.ZIP)), with_it)
        tree = self.tree(hidden=False)
        self.assertEqual(unpacked(TreeForm.ZIP, self.pack(TreeForm.ZIP, tree)), self.expected())
        self.assertEqual(total(tree)[:2], (sum(map(len, self.files.values())), len(self.files)))

    def test_what_is_no_file(self) -> None:
        """Links, FIFOs and sockets are left out and named with the reason; a link to a file is that file."""
        (self.root / "outside").touch()
        links = {"link": "a.txt", "out": "../../outside", "nowhere": "x", "loop": ".", "to-fifo": "fifo"}
        for name, target in links.items():
            (self.top / name).symlink_to(target)
        os.mkfifo(self.top / "fifo")
        with socket.socket(socket.AF_UNIX) as listener:
            here = os.getcwd()
            os.chdir(self.top)
            listener.bind("socket")
            os.chdir(here)
        watching = Watching()
        found = unpacked(TreeForm.ZIP, self.pack(TreeForm.ZIP, watching=watching))
        self.assertEqual(found, self.expected() | {"top/link": self.files["a.txt"]})
        nothing = "a link that leads to nothing here"
        self.assertEqual(
            watching.skipped,
            {
                "top/out": nothing,
                "top/nowhere": nothing,
                "top/loop": "a link to a directory",
                "top/to-fifo": "a FIFO",
                "top/fifo": "a FIFO",
                "top/socket": "a socket",
            },
        )

    def test_names_that_are_no_text(self) -> None:
        """Bytes that are not UTF-8 survive a tar; in a zip they are replaced, and no name is a path there."""
        (self.top / os.fsdecode(b"bad\xff")).touch()
        (self.top / "back\\slash").touch()
        self.assertIn(
            f"top/{os.fsdecode(bytes([98, 97, 100, 255]))}", unpacked(TreeForm.TAR, self.pack(TreeForm.TAR))
        )
        names = unpacked(TreeForm.ZIP, self.pack(TreeForm.ZIP, sums=True))
        self.assertTrue({"top/bad\ufffd", "top/back_slash"} <= set(names))
        self.assertIn("top/bad\ufffd\n".encode(), names[SUMS] or b"")

    def test_names_that_become_the_same(self) -> None:
        """In a zip each keeps a name of its own, which its checksum has too; directories are not mixed."""
        odd = [b"bad\xfe.x", b"bad\xff.x", b"a\\b/in", b"a_b/in", b".\xff", b".\xfe"]
        for number, raw in enumerate(odd):
            path = self.top / "sub" / "hollow" / os.fsdecode(raw)
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(b"%d" % number)
        found = unpacked(TreeForm.ZIP, self.pack(TreeForm.ZIP, sums=True))
        lines = (found[SUMS] or b"").decode().splitlines()
        for name, content in (
            ("bad\ufffd.x", b"0"),
            ("bad\ufffd (2).x", b"1"),
            ("a_b (2)/in", b"2"),
            ("a_b/in", b"3"),
            (".\ufffd", b"5"),
            (".\ufffd (2)", b"4"),
        ):
            path_inside = f"top/sub/hollow/{name}"
            self.assertEqual(found[path_inside], content)
            self.assertIn(f"{hashlib.sha256(content).hexdigest()}  {path_inside}", lines)


class SumsTests(PackingCase):
    """The member SHA256SUMS."""

    def test_lines(self) -> None:
        """It comes last and has a line for each file, by its name in the archive."""
        for form in FORMS:
            found = unpacked(form, self.pack(form, sums=True))
            self.assertEqual(list(found)[-1], SUMS)
            lines = (found.pop(SUMS) or b"").decode().splitlines()
            expected = [
                f"{hashlib.sha256(content).hexdigest()}  {name}"
                for name, content in found.items()
                if content is not None
            ]
            self.assertEqual(lines, expected)

    def test_checked_by_the_program(self) -> None:
        """`sha256sum -c` finds every file of an unpacked archive, those with odd names too."""
        for name in ("new\nline", "back\\slash", "both\\\n", " x", "*y", os.fsdecode(b"bad\xff")):
            (self.top / name).write_text(name, errors="surrogateescape")
        place = Path(self.mktemp())
        with tarfile.open(fileobj=io.BytesIO(self.pack(TreeForm.TAR_GZ, sums=True))) as archive:
            archive.extractall(place)
        done = subprocess.run(
            ["sha256sum", "--strict", "--quiet", "-c", SUMS], cwd=place, capture_output=True, check=False
        )
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, b"", b""))

    def test_line(self) -> None:
        """A name with a newline or a backslash is escaped, and its line marked."""
        self.assertEqual(sums_line("0f", "a b"), b"0f  a b\n")
        self.assertEqual(sums_line("0f", "a\\b\nc\r"), b"\\0f  a\\\\b\\nc\\r\n")

    def test_many(self) -> None:
        """More sums, and more of a zip's directory, than memory is to hold come out whole."""
        for number in range(9_500):
            (self.top / f"sub/{number:05}-{'x' * 60}").touch()
        found = unpacked(TreeForm.ZIP, self.pack(TreeForm.ZIP, sums=True))
        self.assertEqual(len(found), 9_500 + len(self.expected()) + 1)
        self.assertEqual(len((found[SUMS] or b"").splitlines()), 9_500 + len(self.files))


class WatchTests(PackingCase):
    """Progress, and being stopped."""

    def test_progress(self) -> None:
        """What is told of bytes and files adds up to the total that was counted before."""
        for form in FORMS:
            watching = Watching()
            self.pack(form, watching=watching, sums=True)
            self.assertEqual((watching.bytes, watching.files), total(self.tree())[:2])

    def test_stopped(self) -> None:
        """What a check raises ends it, wherever that is, and leaves nothing."""
        for form in (*FORMS, Form.GZ):
            for number in (1, 2, 9):
                left = [number]

                def stop(left: list[int] = left) -> None:
                    left[0] -= 1
                    if not left[0]:
                        raise JobCancelled

                one = OneFile(self.jail, View(), P("top/sub/large"), "large")
                tree = one if form is Form.GZ else None
                with self.assertRaises(JobCancelled):
                    self.pack(form, tree, Watching(stop), sums=form is not Form.GZ)

    def test_checked_while_walking(self) -> None:
        """The tree's own check is called for each entry that is found, and again before each is packed."""
        tree = Tree(self.jail, View(), P("top"), "top", check=self.fail)
        with self.assertRaises(self.failureException):
            total(tree)
        plain = self.root / "plain"
        plain.mkdir()
        for name in "abc":
            (plain / name).touch()
            (plain / f"{name}.d").mkdir()
        (plain / "away").symlink_to("nowhere")
        for one, least in ((Tree, 14), (OneFile, 1)):
            checks: list[None] = []
            path = P("plain" if one is Tree else "plain/a")
            self.pack(TreeForm.ZIP, one(self.jail, View(), path, "n", partial(checks.append, None)))
            self.assertGreaterEqual(len(checks), least)

    def test_closed_early(self) -> None:
        """A stream that is closed in the middle leaves nothing."""
        for form in FORMS:
            with closing(Threads(2)) as threads:
                packing = Packing(form, threads, True, partial(self.jail.stage, View(), P("x")))
                pieces = packed(self.tree(), packing, Watching())
                next(pieces)
                pieces.close()


class ChangeTests(PackingCase):
    """A tree that does not hold still, or may not be read."""

    def broken(self, kind: type[Exception], change: Callable[[], object]) -> str:
        """Change something after 300 KiB of the large file, which is in the middle; what is said then."""
        for form in FORMS:
            watching = Watching()

            def once(watching: Watching = watching) -> None:
                if watching.bytes > 300 << 10:
                    watching.then = lambda: None
                    change()

            watching.then = once
            error = self.assertRaises(kind, self.pack, form, None, watching)
        return str(error)

    def test_changes_while_read(self) -> None:
        """A file that grows, shrinks or is written to while it is read ends the archive, and is named.

        Also where its time was put back.
        """
        large = self.top / "sub" / "large"

        def touch() -> None:
            status = large.stat()
            os.utime(large, ns=(0, status.st_mtime_ns + 1))

        for change in (
            lambda: os.truncate(large, large.stat().st_size - 5),
            lambda: os.truncate(large, large.stat().st_size + 1),
            touch,
        ):
            self.broken(ChangedWhileRead, change)

        def secretly() -> None:
            status = large.stat()
            with large.open("r+b") as file:
                file.write(b"other")
            os.utime(large, ns=(status.st_atime_ns, status.st_mtime_ns))

        self.assertIn("top/sub/large", self.broken(ChangedWhileRead, secretly))
        self.assertIn("top/sub/large", self.broken(ChangedWhileRead, touch))

    def test_changed_since_it_was_found(self) -> None:
        """So does one that changed, or went away, between the listing and its turn."""
        last = self.top / "zz été"
        self.broken(ChangedWhileRead, lambda: last.write_bytes(b"LAST"))
        last.unlink()
        last.touch()

        def away() -> None:
            last.unlink(missing_ok=True)

        error = ""
        for form in FORMS:
            last.touch()
            watching = Watching()
            watching.then = away
            error = str(self.assertRaises(ChangedWhileRead, self.pack, form, None, watching))
        self.assertIn("zz été went away", error)

    def test_unreadable(self) -> None:
        """A file or directory that may not be read ends it with a sentence that names it."""
        outer = self.top / "sub"
        (self.top / "a.txt").chmod(0)
        self.addCleanup(self.root.chmod, 0o755)
        for _ in range(2):
            with unprivileged():
                error = self.assertRaises(Unreadable, self.pack, TreeForm.TAR_GZ)
                self.assertRegex(str(error), r"\Atop/(a\.txt|sub) cannot be read\Z")
            (self.top / "a.txt").chmod(0o644)
            forbid(self, outer, 0)
        outer.chmod(0o755)

    def test_too_deep(self) -> None:
        """A tree deeper than any path is refused."""
        self.top.joinpath(*["d"] * (MAX_DEPTH + 1)).mkdir(parents=True)
        self.assertRaises(FileNameError, self.pack, TreeForm.TAR)
        self.assertRaises(FileNameError, total, self.tree())
