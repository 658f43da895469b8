"""Remote paths behave as `pathlib.Path` does: the same tables are run on both."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path, PurePath
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from fileexport import Client, FileNameError, RemotePath, is_file_name_valid
from fileexport.testing import serving
from tests.odd_names import ODD_NAMES

TOKEN = "fex1_examples-" + "x1Y2z3W4" * 5
BLIND = "fex1_writing1-" + "x1Y2z3W4" * 5
MTIME = 1_700_000_000_123_456_789
#: A path here or there: what both have is what the tables use.
Top = Any
SUB = ("/", "/empty/", "/.hidden")
NAMES = ("file", "dir", "link", "dirlink", "broken", "missing", "file/below", "missing/below")


def opened(path: Top) -> tuple[bytes, int]:
    """Two bytes from the middle, and where that ends."""
    with path.open("rb") as file:
        file.seek(2)
        return file.read(2), file.tell()


def written(path: Top, content: str) -> str:
    """What is there after it was written line by line."""
    with path.open("w", encoding="utf-8") as file:
        file.writelines(content.splitlines(keepends=True))
    text: str = path.read_text(encoding="utf-8")
    return text


def walked(top: Top, **wishes: Any) -> Iterator[tuple[Any, list[str], list[str]]]:
    """`walk`, for older versions of pathlib by that of `os`, with links among the files."""
    if hasattr(top, "walk"):
        yield from top.walk(**wishes)
        return
    follows = wishes.get("follow_symlinks", False)
    for place, directories, files in os.walk(
        top, wishes.get("top_down", True), wishes.get("on_error"), follows
    ):
        links = [name for name in directories if not follows and (Path(place) / name).is_symlink()]
        for name in links:
            directories.remove(name)
        yield Path(place), directories, files + links


#: Questions that change nothing, and their answers.
LOOKS: tuple[tuple[str, Callable[[Top], object], object], ...] = (
    ("size", lambda top: (top / "file").stat().st_size, 5),
    ("time", lambda top: (top / "file").stat().st_mtime_ns, MTIME),
    ("seconds", lambda top: (top / "file").stat().st_mtime, MTIME / 10**9),
    ("kind", lambda top: stat.S_IFMT((top / "file").stat().st_mode), stat.S_IFREG),
    ("directory", lambda top: stat.S_ISDIR((top / "dir").stat().st_mode), True),
    ("link to a file", lambda top: (top / "link").stat().st_size, 5),
    ("its time", lambda top: (top / "link").stat().st_mtime_ns, MTIME),
    ("link to a directory", lambda top: stat.S_ISDIR((top / "dirlink").stat().st_mode), True),
    ("its time too", lambda top: (top / "dirlink").stat().st_mtime_ns, MTIME),
    ("link itself", lambda top: stat.S_ISLNK((top / "link").lstat().st_mode), True),
    ("not followed", lambda top: stat.S_ISLNK((top / "link").stat(follow_symlinks=False).st_mode), True),
    ("exists", lambda top: [(top / name).exists() for name in NAMES], [True] * 4 + [False] * 4),
    ("files", lambda top: [(top / name).is_file() for name in NAMES], [True, False] * 2 + [False] * 4),
    ("directories", lambda top: [(top / name).is_dir() for name in NAMES], [False, True] * 2 + [False] * 4),
    ("links", lambda top: [name for name in NAMES if (top / name).is_symlink()], [*NAMES[2:5]]),
    ("NUL", lambda top: (top / "a\0b").exists(), False),
    ("entries", lambda top: sorted(one.name for one in top.iterdir()), sorted(NAMES[:5])),
    ("of a link", lambda top: sorted(one.name for one in (top / "dirlink").iterdir()), ["sub", "x.txt"]),
    ("none", lambda top: list((top / "dir" / "sub" / "empty").iterdir()), []),
    ("bytes", lambda top: (top / "file").read_bytes(), b"a\r\n\xc3\xa9"),
    ("text", lambda top: (top / "file").read_text(encoding="utf-8"), "a\n\xe9"),
    ("errors", lambda top: (top / "file").read_text("ascii", "replace"), "a\n\ufffd\ufffd"),
    ("through a link", lambda top: (top / "dirlink" / "x.txt").read_bytes(), b"x"),
    ("opened", lambda top: opened(top / "file"), (b"\n\xc3", 4)),
)

#: What must fail, and changes nothing: the exception, its number, and the names in it.
FAILURES: tuple[tuple[str, Callable[[Top], object], type[OSError], int, tuple[str, ...]], ...] = (
    ("stat", lambda top: (top / "no").stat(), FileNotFoundError, errno.ENOENT, ("no",)),
    ("lstat", lambda top: (top / "no").lstat(), FileNotFoundError, errno.ENOENT, ("no",)),
    ("broken", lambda top: (top / "broken").stat(), FileNotFoundError, errno.ENOENT, ("broken",)),
    ("below", lambda top: (top / "file/x").stat(), NotADirectoryError, errno.ENOTDIR, ("file/x",)),
    ("list", lambda top: list((top / "no").iterdir()), FileNotFoundError, errno.ENOENT, ("no",)),
    ("list file", lambda top: list((top / "file").iterdir()), NotADirectoryError, errno.ENOTDIR, ("file",)),
    ("read", lambda top: (top / "no").read_bytes(), FileNotFoundError, errno.ENOENT, ("no",)),
    ("read dir", lambda top: (top / "dir").read_bytes(), IsADirectoryError, errno.EISDIR, ("dir",)),
    ("text", lambda top: (top / "no").read_text(), FileNotFoundError, errno.ENOENT, ("no",)),
    ("open", lambda top: (top / "no").open(), FileNotFoundError, errno.ENOENT, ("no",)),
    ("open dir", lambda top: (top / "dir").open("rb"), IsADirectoryError, errno.EISDIR, ("dir",)),
    ("open new", lambda top: (top / "file").open("x"), FileExistsError, errno.EEXIST, ("file",)),
    ("write", lambda top: (top / "no/x").write_bytes(b""), FileNotFoundError, errno.ENOENT, ("no/x",)),
    ("write dir", lambda top: (top / "dir").write_text("x"), IsADirectoryError, errno.EISDIR, ("dir",)),
    ("write top", lambda top: top.write_bytes(b""), IsADirectoryError, errno.EISDIR, ("",)),
    ("under", lambda top: (top / "file/x").write_bytes(b""), NotADirectoryError, errno.ENOTDIR, ("file/x",)),
    ("touch", lambda top: (top / "no/x").touch(), FileNotFoundError, errno.ENOENT, ("no/x",)),
    ("touch new", lambda top: (top / "file").touch(exist_ok=False), FileExistsError, errno.EEXIST, ("file",)),
    ("touch dir", lambda top: (top / "dir").touch(exist_ok=False), FileExistsError, errno.EEXIST, ("dir",)),
    ("touch top", lambda top: top.touch(exist_ok=False), FileExistsError, errno.EEXIST, ("",)),
    ("mkdir", lambda top: (top / "dir").mkdir(), FileExistsError, errno.EEXIST, ("dir",)),
    ("mkdir file", lambda top: (top / "file").mkdir(exist_ok=True), FileExistsError, errno.EEXIST, ("file",)),
    ("mkdir top", lambda top: top.mkdir(), FileExistsError, errno.EEXIST, ("",)),
    ("mkdir no", lambda top: (top / "no/x").mkdir(), FileNotFoundError, errno.ENOENT, ("no/x",)),
    (
        *("parents", lambda top: (top / "file/x/y").mkdir(parents=True)),
        *(NotADirectoryError, errno.ENOTDIR, ("file/x/y",)),
    ),
    ("rmdir", lambda top: (top / "dir").rmdir(), OSError, errno.ENOTEMPTY, ("dir",)),
    ("rmdir no", lambda top: (top / "no").rmdir(), FileNotFoundError, errno.ENOENT, ("no",)),
    ("rmdir file", lambda top: (top / "file").rmdir(), NotADirectoryError, errno.ENOTDIR, ("file",)),
    ("rmdir link", lambda top: (top / "dirlink").rmdir(), NotADirectoryError, errno.ENOTDIR, ("dirlink",)),
    ("unlink", lambda top: (top / "no").unlink(), FileNotFoundError, errno.ENOENT, ("no",)),
    (
        *("unlink dir", lambda top: (top / "dir/sub/empty").unlink()),
        *(IsADirectoryError, errno.EISDIR, ("dir/sub/empty",)),
    ),
    ("rename", lambda top: (top / "no").rename(top / "x"), FileNotFoundError, errno.ENOENT, ("no", "x")),
    (
        "away",
        lambda top: (top / "file").rename(top / "no/x"),
        FileNotFoundError,
        errno.ENOENT,
        ("file", "no/x"),
    ),
    (
        *("onto a directory", lambda top: (top / "file").replace(top / "dir")),
        *(IsADirectoryError, errno.EISDIR, ("file", "dir")),
    ),
    (
        *("onto a file", lambda top: (top / "dir").replace(top / "file")),
        *(NotADirectoryError, errno.ENOTDIR, ("dir", "file")),
    ),
    ("into itself", lambda top: (top / "dir").rename(top / "dir/x"), OSError, errno.EINVAL, ("dir", "dir/x")),
)

#: Changes, what they return, and which entries came and went by them.
CHANGES: tuple[tuple[str, Callable[[Top], object], object, set[str], set[str]], ...] = (
    ("mkdir", lambda top: (top / "new").mkdir(), None, {"new/"}, set()),
    ("exist_ok", lambda top: (top / "dir").mkdir(exist_ok=True), None, set(), set()),
    ("linked", lambda top: (top / "dirlink").mkdir(exist_ok=True), None, set(), set()),
    ("top", lambda top: top.mkdir(parents=True, exist_ok=True), None, set(), set()),
    ("parents", lambda top: (top / "a/b/c").mkdir(parents=True), None, {"a/", "a/b/", "a/b/c/"}, set()),
    (
        *("through a link", lambda top: (top / "dirlink/a/b").mkdir(parents=True)),
        *(None, {"dir/a/", "dir/a/b/"}, set()),
    ),
    ("rmdir", lambda top: (top / "dir/sub/empty").rmdir(), None, set(), {"dir/sub/empty/"}),
    ("unlink", lambda top: (top / "file").unlink(), None, set(), {"file"}),
    ("unlink link", lambda top: (top / "dirlink").unlink(), None, set(), {"dirlink"}),
    ("missing_ok", lambda top: (top / "no").unlink(missing_ok=True), None, set(), set()),
    ("touch", lambda top: (top / "new").touch(), None, {"new"}, set()),
    ("touched", lambda top: (top / "dir").touch(), None, set(), set()),
    ("bytes", lambda top: (top / "new").write_bytes(b"\xff" * 7), 7, {"new"}, set()),
    ("many bytes", lambda top: (top / "new").write_bytes(bytes(1 << 17)), 1 << 17, {"new"}, set()),
    ("text", lambda top: (top / "new").write_text("\xe9\n", "utf-8", newline="\r\n"), 2, {"new"}, set()),
    ("over", lambda top: (top / "file").write_bytes(memoryview(b"1234")), 4, set(), set()),
    ("opened", lambda top: written(top / "new", "a\nb\n"), "a\nb\n", {"new"}, set()),
    (
        "rename",
        lambda top: (top / "dir/sub").rename(top / "s").name,
        "s",
        {f"s{p}" for p in SUB},
        {f"dir/sub{p}" for p in SUB},
    ),
    ("replace", lambda top: (top / "file").replace(top / "link").name, "link", set(), {"file"}),
    ("same", lambda top: (top / "file").replace(top / "file").name, "file", set(), set()),
    ("symlink", lambda top: (top / "new").symlink_to("file"), None, {"new"}, set()),
)


class Behaviour:
    """The tables on one of both kinds; `top` is the directory `here`."""

    top: Top
    here: Path

    def make(self) -> None:
        """What is there."""
        (self.here / "dir" / "sub" / "empty").mkdir(parents=True)
        (self.here / "file").write_bytes(b"a\r\n\xc3\xa9")
        (self.here / "dir" / "x.txt").write_text("x")
        (self.here / "dir" / "sub" / ".hidden").write_text("h")
        (self.here / "link").symlink_to("file")
        (self.here / "dirlink").symlink_to("dir")
        (self.here / "broken").symlink_to("nothing")
        for path in (self.here / "file", self.here / "dir"):
            os.utime(path, ns=(MTIME, MTIME))

    def there(self) -> dict[str, bytes]:
        """What is there: directories end with a slash, links with their text, files have their content."""
        found = {}
        for place, directories, files in os.walk(self.here):
            for name in (*directories, *files):
                path = Path(place) / name
                spelled = str(path.relative_to(self.here))
                if path.is_symlink():
                    found[spelled] = os.fsencode(os.readlink(path))
                elif path.is_dir():
                    found[spelled + "/"] = b""
                else:
                    found[spelled] = path.read_bytes()
        return {path: content for path, content in found.items() if ".fileexport" not in path}

    def spelled(self, path: object) -> str:
        """A path as seen from the top."""
        text = str(path).removeprefix(str(self.top)).lstrip("/")
        return text


class Table(Behaviour, SynchronousTestCase):
    """What the tables say, on `pathlib.Path`."""

    def setUp(self) -> None:
        self.here = Path(self.mktemp()).absolute()
        self.here.mkdir()
        self.make()
        self.top = self.here

    def test_looks(self) -> None:
        """Each question has its answer."""
        for name, look, answer in LOOKS:
            self.assertEqual(look(self.top), answer, name)

    def test_failures(self) -> None:
        """What cannot be done raises the same exception with the same file names, and changes nothing."""
        before = self.there()
        for name, act, kind, number, names in FAILURES:
            error = self.assertRaises(OSError, act, self.top)
            self.assertIs(type(error), kind, name)
            self.assertEqual(error.errno, number, name)
            found = [error.filename, error.filename2] if len(names) > 1 else [error.filename]
            self.assertEqual(tuple(map(self.spelled, found)), names, name)
        self.assertEqual(self.there(), before)

    def test_changes(self) -> None:
        """Each change does what it says and nothing else."""
        for number, (name, act, answer, came, gone) in enumerate(CHANGES):
            home, top = self.here, self.top
            self.here, self.top = home / str(number), top / str(number)
            self.here.mkdir()
            self.make()
            before = self.there()
            self.assertEqual(act(self.top), answer, name)
            after = self.there()
            self.assertEqual(before.keys() - after.keys(), gone, name)
            self.assertEqual(after.keys() - before.keys(), came, name)
            self.here, self.top = home, top

    def test_written(self) -> None:
        """What was written is there, and the time of a file that is touched is now."""
        (self.top / "new").write_text("\xe9\n", "utf-8", newline="\r\n")
        self.assertEqual((self.here / "new").read_bytes(), b"\xc3\xa9\r\n")
        (self.top / "new").write_bytes(b"")
        self.assertEqual((self.here / "new").read_bytes(), b"")
        (self.top / "new").write_bytes(content := os.urandom(1 << 17))
        self.assertEqual((self.here / "new").read_bytes(), content)
        for name in ("file", "dir"):
            (self.top / name).touch()
            self.assertGreater((self.here / name).stat().st_mtime_ns, MTIME, name)
        self.assertRaises(TypeError, (self.top / "new").write_text, b"x")
        self.assertRaises(TypeError, (self.top / "new").write_bytes, "x")
        self.assertRaises(UnicodeEncodeError, (self.top / "other").write_text, "\xe9", "ascii")

    def test_modes(self) -> None:
        """Permissions are set where they are given, and by `chmod`."""
        (self.top / "shut").mkdir(0o700)
        (self.top / "own").touch(0o600)
        (self.top / "file").chmod(0o640)
        found = [stat.S_IMODE((self.here / name).stat().st_mode) for name in ("shut", "own", "file")]
        self.assertEqual(found, [0o700, 0o600, 0o640])

    def test_globs(self) -> None:
        """Every pattern of up to three of these names has what `pathlib` finds."""
        (self.here / "dir" / "sub" / "deep" / "sub").mkdir(parents=True)
        (self.here / "dir" / "sub" / "deep" / "back").symlink_to("../../../dir")
        (self.here / "dir" / "sub" / "deep" / "x.txt").write_text("")
        names = ("*", "**", "dir", "s*", "[!s]*.txt", "dirlink", "?ub", ".*", "no", "file")
        for count in (1, 2, 3):
            for chosen in product(names, repeat=count):
                if chosen[-1] == "**":
                    # Versions of Python differ.
                    continue
                for pattern in ("/".join(chosen), "/".join(chosen) + "/"):
                    wanted = sorted(str(one.relative_to(self.here)) for one in self.here.glob(pattern))
                    found = sorted(map(self.spelled, self.top.glob(pattern)))
                    wanted = [path for path in wanted if ".fileexport" not in path]
                    self.assertEqual(found, sorted(set(wanted)), pattern)

    def test_rglobs(self) -> None:
        """`rglob` looks at every depth, and bad patterns are refused."""
        self.assertEqual({*map(self.spelled, self.top.rglob("*.txt"))}, {"dir/x.txt"})
        self.assertEqual({*map(self.spelled, self.top.rglob("sub/.*"))}, {"dir/sub/.hidden"})
        self.assertEqual({*map(self.spelled, (self.top / "dirlink").rglob("*.txt"))}, {"dirlink/x.txt"})
        self.assertEqual(list((self.top / "file").glob("*")), [])
        self.assertEqual(list((self.top / "no").rglob("*")), [])
        for pattern, kind in (("", ValueError), ("/dir", NotImplementedError)):
            self.assertRaises(kind, lambda pattern=pattern: list(self.top.glob(pattern)))
        self.assertRaises(NotImplementedError, lambda: list(self.top.rglob("/dir")))

    def test_walk(self) -> None:
        """Directories come before or after what is in them; links are files unless they are followed."""

        def seen(**wishes: Any) -> list[tuple[str, set[str], set[str]]]:
            found = ((self.spelled(place), {*one}, {*two}) for place, one, two in walked(self.top, **wishes))
            return [row for row in found if not row[0].startswith(".fileexport")]

        top = ("", {"dir"}, {"file", "link", "dirlink", "broken"})
        below = [
            ("dir", {"sub"}, {"x.txt"}),
            ("dir/sub", {"empty"}, {".hidden"}),
            ("dir/sub/empty", set(), set()),
        ]
        self.assertEqual(seen(), [top, *below])
        self.assertEqual(seen(top_down=False), [*reversed(below), top])
        followed = seen(follow_symlinks=True)
        self.assertEqual(followed[0], ("", {"dir", "dirlink"}, {"file", "link", "broken"}))
        self.assertIn(("dirlink/sub", {"empty"}, {".hidden"}), followed)

    def test_pruned(self) -> None:
        """A directory that is taken out of the list is not entered; what cannot be listed is told of."""
        places = []
        for place, directories, _ in walked(self.top):
            places.append(self.spelled(place))
            if "sub" in directories:
                directories.remove("sub")
        self.assertEqual(places, ["", "dir"])
        errors: list[OSError] = []
        self.assertEqual(list(walked(self.top / "no", on_error=errors.append)), [])
        self.assertEqual(list(walked(self.top / "file")), [])
        self.assertEqual(
            [(type(one), self.spelled(one.filename)) for one in errors], [(FileNotFoundError, "no")]
        )

    def test_odd_names(self) -> None:
        """Whatever a name is, it is found, read, renamed and removed."""
        odd = self.here / "odd"
        odd.mkdir()
        for name in ODD_NAMES:
            (odd / name).write_bytes(os.fsencode(name))
        self.assertEqual({one.name for one in (self.top / "odd").iterdir()}, {*ODD_NAMES})
        self.assertEqual({one.name for one in self.top.rglob("odd/*")}, {*ODD_NAMES})
        for name in ODD_NAMES:
            path = self.top / "odd" / name
            self.assertEqual(path.read_bytes(), os.fsencode(name))
            path.rename(self.top / "odd" / "moved")
            (self.top / "odd" / "moved").unlink()
        self.assertEqual(list(odd.iterdir()), [])

    def test_no_text(self) -> None:
        """Paths go together with names and paths, and with nothing else."""
        self.assertRaises(TypeError, lambda: self.top / 5)
        self.assertRaises(TypeError, lambda: self.top / b"x")
        self.assertEqual(self.spelled(self.top.joinpath("a", PurePath("b/c"), "d")), "a/b/c/d")
        self.assertNotEqual(self.top, str(self.top))


class RemoteTable(Table):
    """The same, on `RemotePath`; and where it is something else by intention."""

    def setUp(self) -> None:
        super().setUp()
        server = self.enterContext(serving(self.here, token=TOKEN, tokens=f"{BLIND} may=write,delete\n"))
        self.port = server.port
        self.client = self.enterContext(server.client())
        self.top = self.client.path("/")

    def test_modes_are_unknown(self) -> None:
        """`stat` knows no permissions, and nothing else that the server does not tell."""
        found = (self.top / "file").stat()
        self.assertEqual(stat.S_IMODE(found.st_mode), 0)
        unknown = (
            found.st_ino,
            found.st_dev,
            found.st_nlink,
            found.st_uid,
            found.st_atime,
            found.st_ctime_ns,
        )
        self.assertEqual(unknown, (0,) * 6)

    def test_taken(self) -> None:
        """`rename` replaces nothing: that is what `replace` is for."""
        (self.here / "other").write_text("other")
        error = self.assertRaises(FileExistsError, (self.top / "file").rename, "/other")
        self.assertEqual((error.filename, error.filename2), ("/file", "/other"))
        self.assertEqual((self.here / "other").read_text(), "other")
        self.assertEqual((self.top / "file").replace("/other"), self.top / "other")
        self.assertRaises(ValueError, (self.top / "other").rename, "relative")

    def test_links(self) -> None:
        """A write takes the place of a link; no link leads outside, and none is touched."""
        (self.top / "link").write_bytes(b"new")
        self.assertFalse((self.here / "link").is_symlink())
        self.assertEqual((self.here / "file").read_bytes(), b"a\r\n\xc3\xa9")
        for act in (
            lambda: (self.top / "out").symlink_to("/etc"),
            lambda: (self.top / "dirlink").touch(),
            lambda: (self.top / "dirlink").chmod(0o700),
        ):
            self.assertEqual(self.assertRaises(OSError, act).errno, errno.EINVAL)
        for top in (self.top, self.here):
            self.assertRaises(FileNotFoundError, (top / "none").symlink_to, "")
        (self.here / "out").symlink_to("/etc")
        self.assertFalse((self.top / "out").exists())
        self.assertTrue((self.top / "out").exists(follow_symlinks=False))

    def test_replaced(self) -> None:
        """What takes a place between the look and the removal stays: a directory that of a file, and back."""

        class Late(Client):
            """Somebody else is quicker than what it changes."""

            before: list[Callable[[], object]]

            def change(self, steps: Any, timeout: float | None = None) -> Iterator[Exception | None]:
                while self.before:
                    self.before.pop(0)()
                return super().change(steps, timeout)

        file, directory = self.here / "file", self.here / "dir/sub/empty"
        with Late("127.0.0.1", self.port, TOKEN) as client:
            client.before = [file.unlink, file.mkdir]
            self.assertRaises(IsADirectoryError, client.path("/file").unlink)
            client.before = [directory.rmdir, lambda: directory.write_text("new")]
            self.assertRaises(NotADirectoryError, client.path("/dir/sub/empty").rmdir)
        self.assertTrue(file.is_dir() and directory.is_file())

    def test_names(self) -> None:
        """A name that cannot be one, or that the server does not create, is said to be so."""
        for path in ("/a/../file", "/a\0b", "/" + "x" * 256):
            self.assertRaises(FileNameError, RemotePath(path, client=self.client).stat)
            self.assertFalse(RemotePath(path, client=self.client).exists())
        for name in ODD_NAMES:
            if not is_file_name_valid(name):
                self.assertRaises(FileNameError, (self.top / name).write_bytes, b"")
                self.assertRaises(FileNameError, (self.top / name).touch)

    def test_deep_end(self) -> None:
        """``**`` at the end is a directory and all below it, with a slash its directories alone."""
        below = {"", "sub", "sub/empty", "x.txt", "sub/.hidden"}
        directory = self.top / "dir"
        self.assertEqual({self.spelled(one)[4:] for one in directory.glob("**")}, below)
        self.assertEqual({self.spelled(one)[4:] for one in directory.rglob("")}, below)
        self.assertEqual({self.spelled(one)[4:] for one in directory.glob("**/")}, {"", "sub", "sub/empty"})
        self.assertEqual({self.spelled(one) for one in self.top.glob("F*")}, set())
        self.assertEqual({self.spelled(one) for one in self.top.glob("F*", case_sensitive=False)}, {"file"})
        self.assertRaises(ValueError, self.top.glob, "../*")
        self.assertRaises(ValueError, self.top.glob, "**x")

    def test_blind(self) -> None:
        """Who may not read is told so, and does not find an empty directory."""
        with Client("127.0.0.1", self.port, BLIND) as client:
            top = client.path("/")
            self.assertRaises(PermissionError, lambda: list(top.glob("*")))
            self.assertRaises(PermissionError, lambda: list(top.rglob("*")))
            self.assertRaises(PermissionError, top.exists)
            (top / "blind").write_text("written")
        self.assertEqual((self.here / "blind").read_text(), "written")

    def test_unreachable(self) -> None:
        """A server that is gone is no empty directory: every call says so."""
        with Client("127.0.0.1", 9, TOKEN, timeout=5000) as client:
            top = client.path("/")
            for act in (
                *(top.exists, top.stat, top.iterdir, top.read_bytes, top.unlink, (top / "x").touch),
                lambda: list(top.glob("*")),
                lambda: list(walked(top)),
                lambda: (top / "x").write_bytes(b""),
            ):
                self.assertRaises(ConnectionError, act)
