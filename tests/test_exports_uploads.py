"""The verbs around uploads: what can be known before, between and after; a free name."""

from __future__ import annotations

import errno
import io
import os
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fileexport.disk.jail import Jail
from fileexport.disk.trees import TreeForm
from fileexport.errors import BusyError, DestinationNotFound, FileNameError
from fileexport.exports import Exports
from fileexport.exports_uploads import MAX_TRIES, numbered
from fileexport.paths import MAX_NAME, RESERVED, RelPath, is_file_name_valid
from fileexport.tokens import Principal, Right
from fileexport.uploads import Upload
from tests.test_exports import ALL, ROOT, STRANGER, ExportsCase, P, principal
from tests.test_staging import Counted
from tests.watched import WatchedCalls

SOURCE: dict[str, Any] = {"size": 10, "source": b"s"}


class VerbsCase(ExportsCase):
    """Has a directory `d` with a file."""

    def setUp(self) -> None:
        super().setUp()
        self.write("d/file")

    def begin(self, path: str = "d/file", who: Principal = ALL, **how: Any) -> Upload:
        return self.exports.begin_upload(who, P(path), **{"replace": True, "holder": "x", **how})

    def kept(self, **how: Any) -> None:
        """Four of ten bytes, and a break."""
        upload = self.begin(**{**SOURCE, **how})
        upload.write(b"0123")
        upload.suspend()


class RightsTests(VerbsCase):
    """What each right opens."""

    def test_each_verb(self) -> None:
        """All of them need the right to write, whatever else there is, before the disk is touched."""
        verbs: tuple[Callable[[Principal], object], ...] = (
            lambda who: self.exports.check_upload(who, P("n"), size=0, replace=True),
            lambda who: self.exports.check_directory(who, P("d"), size=0),
            lambda who: self.exports.kept_upload(who, P("n"), **SOURCE),
            lambda who: self.exports.forget_upload(who, P("n"), **SOURCE),
            lambda who: self.exports.is_committed(who, P("n"), (1, 2)),
            lambda who: self.exports.free_name(who, P("n")),
            lambda who: self.exports.check_writer(who, P("n")),
        )
        self.calls.clear()
        for verb in verbs:
            for rights in (Right(0), Right.ALL & ~Right.WRITE):
                self.assertRaises(PermissionError, verb, principal(rights=rights))
        self.assertEqual(self.calls, [])
        for verb in verbs:
            verb(principal(rights=Right.WRITE))


class CheckTests(VerbsCase):
    """What would become of an upload."""

    def test_as_begin(self) -> None:
        """It raises what the upload would raise, and leaves nothing: neither staging nor a lease."""
        (self.root / "d/sub").mkdir()
        (self.root / "out").symlink_to("..")
        (self.root / "link").symlink_to("d")
        paths = ("n", "d/file", "link/n", "d/sub", "missing/x", "out/x", "d/file/x", "d/a:b", "", RESERVED)
        for path in (*paths, f"d/{RESERVED}/x", ".hidden", "d/.hidden/x"):
            for who in (ALL, STRANGER):
                for replace in (True, False):
                    found = self.error_of(
                        lambda: self.exports.check_upload(who, P(path), size=1, replace=replace)  # noqa: B023
                    )
                    self.assertFalse((self.root / RESERVED).exists())
                    began = self.error_of(
                        lambda: self.begin(path, who, size=1, replace=replace).discard()  # noqa: B023
                    )
                    self.assertEqual(found, began, (path, who, replace))
                    if (self.root / RESERVED).exists():
                        (self.root / RESERVED).rmdir()

    @staticmethod
    def error_of(verb: Callable[[], object]) -> type[Exception] | None:
        try:
            verb()
        except (OSError, FileNameError) as error:
            return type(error)
        return None

    def test_exported(self) -> None:
        """Exported directories are no files, and outside of them there is nothing."""
        exports = self.exporting("d")
        for path, kind in (("d", IsADirectoryError), ("", IsADirectoryError), ("x", DestinationNotFound)):
            self.refuses(kind, lambda: exports.check_upload(ALL, P(path), size=1, replace=True))  # noqa: B023

    def test_room(self) -> None:
        """Room is asked for what was said, or for more than the reserve; an empty file needs none."""
        for free, size, is_enough in (
            *((0, 0, True), (0, 1, False), (0, None, False)),
            *(((256 << 20) + 4096, 4096, True), ((256 << 20) + 4096, 4097, False)),
            ((256 << 20) + 4096, None, True),
        ):
            jail = Jail(str(self.root), calls=Counted(1 << 30, free // 4096))
            self.addCleanup(jail.close)
            exports = Exports(jail)
            for check in (
                lambda: exports.check_upload(ALL, P("d/n"), size=size, replace=False),  # noqa: B023
                lambda: exports.check_directory(ALL, P("d"), size=size),  # noqa: B023
            ):
                if is_enough:
                    check()
                else:
                    self.assertEqual(self.assertRaises(OSError, check).errno, errno.ENOSPC)

    def test_read_only(self) -> None:
        """A file system that nobody may write to says so."""
        jail = Jail(str(self.root), calls=Counted(1 << 30, 1 << 29, os.ST_RDONLY))
        self.addCleanup(jail.close)
        check = Exports(jail).check_upload
        error = self.assertRaises(OSError, lambda: check(ALL, P("n"), size=0, replace=True))
        self.assertEqual(error.errno, errno.EROFS)

    def test_directory(self) -> None:
        """A directory must be there for the files that are to come; those above the exported ones are."""

        def check(path: str, exports: Exports = self.exports, who: Principal = ALL) -> None:
            exports.check_directory(who, P(path), size=1)

        (self.root / "out").symlink_to("..")
        (self.root / "link").symlink_to("d")
        for path in ("", "d", "link"):
            check(path)
        for path in ("missing", "out", RESERVED, "d/missing/x"):
            self.refuses(DestinationNotFound, check, path)
        self.refuses(NotADirectoryError, check, "d/file")
        (self.root / ".hidden").mkdir()
        self.refuses(DestinationNotFound, lambda: check(".hidden", who=STRANGER))
        exports = self.exporting("d", "e/f")
        for path in ("", "d", "e"):
            check(path, exports)
        for path in ("e/f", "x"):
            self.refuses(DestinationNotFound, check, path, exports)


class KeptTests(VerbsCase):
    """What is kept of an upload."""

    def offset(self, path: str = "d/file", who: Principal = ALL, **how: Any) -> int:
        return self.exports.kept_upload(who, P(path), **{**SOURCE, **how})

    def forget(self, path: str = "d/file", who: Principal = ALL, **how: Any) -> bool:
        return self.exports.forget_upload(who, P(path), **{**SOURCE, **how})

    def test_own(self) -> None:
        """It is there for the same caller, size and source alone; the question changes nothing."""
        self.kept()
        inner = principal("/d")
        for who, how in ((inner, {}), (ALL, {"size": 11}), (ALL, {"source": b"t"})):
            self.assertEqual((self.offset(who=who, **how), self.forget(who=who, **how)), (0, False))
        self.assertEqual(self.offset(), 4)
        upload = self.begin(**SOURCE)
        self.assertEqual(upload.offset, 4)
        upload.write(b"456789")
        upload.finish()
        self.assertEqual((self.offset(), self.forget()), (0, False))

    def test_forgotten(self) -> None:
        """What is forgotten begins anew; while somebody writes nothing is forgotten."""
        self.kept()
        upload = self.begin(**SOURCE)
        self.assertEqual(self.offset(), 4)
        self.assertRaises(BusyError, self.forget)
        upload.suspend()
        self.assertEqual((self.forget(), self.offset()), (True, 0))
        self.assertEqual(os.listdir(self.root / RESERVED), [])

    def test_nowhere(self) -> None:
        """Where the directory is gone nothing is kept; a path that is no file's is refused."""
        for path in ("missing/file", "d/file/x"):
            self.assertEqual((self.offset(path), self.forget(path)), (0, False))
        self.refuses(IsADirectoryError, self.offset, "")
        self.refuses(FileNameError, self.forget, "d/a:b")

    def test_exported(self) -> None:
        """It is looked for in the staging of the exported directory."""
        self.exports = self.exporting("d")
        self.kept()
        self.assertEqual(self.offset(), 4)
        self.assertEqual(len(os.listdir(self.root / "d" / RESERVED)), 2)
        self.assertTrue(self.forget())


class CommittedTests(VerbsCase):
    """Whether an upload came to its end."""

    def test_committed(self) -> None:
        """Before the commit it is not, then it is, until the file is another one."""
        upload = self.begin()
        identity = upload.identity
        self.assertFalse(self.exports.is_committed(ALL, P("d/file"), identity))
        upload.finish()
        self.assertTrue(self.exports.is_committed(ALL, P("d/file"), identity))
        other = self.begin()
        other.finish()
        self.assertFalse(self.exports.is_committed(ALL, P("d/file"), identity))

    def test_durable(self) -> None:
        """Who says that it is has flushed its name: whoever gave it may have been killed before that."""
        upload = self.begin()
        identity = upload.identity
        upload.finish()
        for durable, expected in ((True, ["fsync"]), (False, [])):
            seen: list[str] = []
            calls = WatchedCalls(lambda name, *_: seen.append(name))  # noqa: B023  # each round has its own
            jail = Jail(str(self.root), calls=calls, durable=durable)
            self.addCleanup(jail.close)
            exports = Exports(jail)
            self.assertFalse(exports.is_committed(ALL, P("d/file"), (1, 2)))
            self.assertNotIn("fsync", seen)
            self.assertTrue(exports.is_committed(ALL, P("d/file"), identity))
            self.assertEqual([name for name in seen if name == "fsync"], expected)

    def test_elsewhere(self) -> None:
        """A link to it, a directory, and what is not there or may not be seen, are not it."""
        status = (self.root / "d/file").stat()
        identity = status.st_dev, status.st_ino
        (self.root / "link").symlink_to("d/file")
        for path in ("link", "d", "", "missing", "missing/x", "d/file/x"):
            self.assertFalse(self.exports.is_committed(ALL, P(path), identity), path)
        self.assertFalse(self.exports.is_committed(principal("/e"), P("d/file"), identity))
        directory = (self.root / "d").stat()
        self.assertFalse(self.exports.is_committed(ALL, P("d"), (directory.st_dev, directory.st_ino)))


class FreeNameTests(VerbsCase):
    """A name that is free."""

    def free(self, path: str, **how: Any) -> str:
        return str(self.exports.free_name(ALL, P(path), **how)).lstrip("/")

    def test_free(self) -> None:
        """It is the name itself where that is free, else that with the first number that is."""
        self.assertEqual(self.free("d/new.txt"), "d/new.txt")
        self.write("d/a.txt", "d/a (2).txt")
        self.assertEqual(self.free("d/a.txt"), "d/a (1).txt")
        self.write("d/a (1).txt")
        self.assertEqual(self.free("d/a.txt"), "d/a (3).txt")

    def test_taken(self) -> None:
        """A directory, a link to nowhere, what somebody writes now, and what was named, are taken."""
        (self.root / "n").mkdir()
        (self.root / "n (1)").symlink_to("nowhere")
        upload = self.begin("n (2)")
        self.assertEqual(self.free("n", taken={P("n (3)")}), "n (4)")
        upload.discard()
        self.assertEqual(self.free("n"), "n (2)")

    def test_diverted(self) -> None:
        """What may have another name is begun all the same, and at its end gets the next one that is free."""
        upload = self.begin(replace=False, diverts=True)
        upload.write(b"mine")
        other = self.begin("d/file (1)")
        paths: list[RelPath] = []
        upload.finish(check=lambda: paths.append(self.exports.divert(ALL, P("d/file"), upload)))
        other.discard()
        self.assertEqual(paths, [P("d/file (2)")])
        self.assertEqual((self.root / "d/file (2)").read_bytes(), b"mine")
        self.exports.check_writer(ALL, P("d/file (2)"))

    def test_not_diverted(self) -> None:
        """Where nothing is in its way it has the name that it wanted."""
        upload = self.begin("d/new", replace=False, diverts=True)
        self.assertEqual(self.exports.divert(ALL, P("d/new"), upload), P("d/new"))
        upload.finish()
        self.assertTrue((self.root / "d/new").exists())

    def test_bounded(self) -> None:
        """After so many it is given up."""

        class All:
            asked = 0

            def __contains__(self, path: object) -> bool:
                self.asked += 1
                return True

        taken = All()
        self.refuses(FileExistsError, lambda: self.free("n", taken=taken))
        self.assertEqual(taken.asked, MAX_TRIES)

    def test_exported(self) -> None:
        """An exported directory is taken; a name that cannot be, or nowhere, is refused."""
        self.exports = self.exporting("d", "e")
        for path, kind in (("d", DestinationNotFound), ("x/y", DestinationNotFound)):
            self.refuses(kind, self.free, path)
        self.refuses(FileNameError, self.free, "d/a:b")
        self.refuses(IsADirectoryError, self.free, "")

    def test_numbered(self) -> None:
        """The number stands in front of what a suffix is for people, and the name never gets too long."""
        for name, found in (
            *(("a.txt", "a (1).txt"), ("a", "a (1)"), (".env", ".env (1)"), ("a.tar.gz", "a (1).tar.gz")),
            *((".a.b", ".a (1).b"), ("a.", "a. (1)"), ("Dr. No", "Dr. No (1)"), (".tar.gz", ".tar (1).gz")),
            *(
                ("v1.2.3", "v1.2 (1).3"),
                ("a (1).txt", "a (1) (1).txt"),
                ("a." + "x" * 20, "a." + "x" * 20 + " (1)"),
            ),
        ):
            self.assertEqual(numbered(name, 1), found)
        for name in (
            "n" * MAX_NAME,
            "é" * 127,
            "n" * 251 + ".txt",
            "\udcff" * MAX_NAME,
            "a" * 200 + "." + "é" * 16,
        ):
            found = numbered(name, 999)
            self.assertIn(" (999)", found)
            self.assertLessEqual(len(os.fsencode(found)), MAX_NAME)
            self.assertEqual(is_file_name_valid(found), is_file_name_valid(name))


class DirectoriesTests(VerbsCase):
    """Directories with all above them."""

    def test_made(self) -> None:
        """What is missing is made; what is exported is there whatever is on the disk."""
        self.assertEqual(self.exports.make_directories(ALL, P("d/a/b")), 2)
        self.assertEqual(self.exports.make_directories(ALL, P("d/a/b")), 0)
        self.assertEqual(self.exports.make_directories(ALL, ROOT), 0)
        exports = self.exporting("d", "e/f")
        for path, made in (("", 0), ("e", 0), ("d", 0), ("e/f", 0), ("d/x", 1)):
            self.assertEqual(exports.make_directories(ALL, P(path)), made)
        self.assertFalse((self.root / "e").exists())

    def test_refused(self) -> None:
        """Outside there is no destination, nor where the exported directory is gone; a file is in the way."""
        exports = self.exporting("d", "e/f")
        for path in ("x", "e/x", "e/f/g"):
            self.refuses(DestinationNotFound, exports.make_directories, ALL, P(path))
        self.refuses(FileExistsError, exports.make_directories, ALL, P("d/file"))
        self.refuses(NotADirectoryError, exports.make_directories, ALL, P("d/file/x"))
        for path in ("d/file/x", "d/file/x/y"):
            self.refuses(NotADirectoryError, exports.make_parents, ALL, P(path))
        self.refuses(FileNameError, exports.make_directories, ALL, P("d/x/a:b"))
        self.refuses(PermissionError, exports.make_directories, STRANGER, P("d/x/.hidden"))
        self.assertEqual(os.listdir(self.root / "d"), ["file"])


class ArchiveTests(VerbsCase):
    """Selected entries of a directory."""

    def test_selected(self) -> None:
        """They alone are in the archive, which has the directory's name; the length is as promised."""
        self.write("d/sub/x", "d/sub/y", "d/.dot", "z")
        name, length, pieces = self.exports.archive(ALL, P("d"), TreeForm.ZIP, ["sub", ".dot", "sub"])
        content = b"".join(pieces)
        self.assertEqual((name, length), ("d.zip", len(content)))
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            self.assertEqual(archive.namelist(), ["d/.dot", "d/sub/", "d/sub/x", "d/sub/y"])
        name, _, pieces = self.exports.archive(ALL, ROOT, TreeForm.TAR, ["z"])
        with tarfile.open(fileobj=io.BytesIO(b"".join(pieces))) as tar:
            self.assertEqual((name, tar.getnames()), ("files.tar", ["files/z"]))

    def test_unknown(self) -> None:
        """What is not there, or may not be seen, is refused at once."""
        self.write("d/.dot")
        for who, entry in ((ALL, "missing"), (ALL, RESERVED), (STRANGER, ".dot")):
            verb: Callable[..., object] = self.exports.archive
            self.refuses(FileNotFoundError, verb, who, P("d"), TreeForm.TAR, ["file", entry])
        self.refuses(FileNameError, verb, ALL, P("d"), TreeForm.TAR, ["../d"])

    def test_odd_names(self) -> None:
        """Names that are not UTF-8 can be selected too."""
        name = os.fsdecode(b"caf\xe9")
        Path(self.root, "d", name).write_text("x")
        _, _, pieces = self.exports.archive(ALL, P("d"), TreeForm.TAR, [name])
        with tarfile.open(fileobj=io.BytesIO(b"".join(pieces)), errors="surrogateescape") as tar:
            self.assertEqual(tar.getnames(), [f"d/{name}"])
