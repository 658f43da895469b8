"""Every operation that changes a jail, each with what may be on the disk before, meanwhile and after."""

from __future__ import annotations

import os
import shutil
import stat
import tarfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from random import Random
from unittest.mock import patch
from zipfile import ZipFile, is_zipfile

from fileexport.compression import ArchiveForm, Compression, Order
from fileexport.disk import notes
from fileexport.disk.calls import Calls
from fileexport.disk.jail import Jail, View
from fileexport.disk.resolve import Resolver, Walk
from fileexport.disk.staging import PREFIX, Staged
from fileexport.meter import Meter
from fileexport.paths import RESERVED, RelPath
from tests.proof.disk_model import Fronted

#: Content by path below the root; an empty directory's path ends with a slash; ours are left out.
Tree = dict[str, bytes]

P = RelPath.parse


@dataclass(frozen=True, slots=True)
class Place:
    """A file as its caller names it (`path` beneath `base`), and where that is."""

    base: str
    path: str
    real: str


PLACES = (
    Place("", "d/file", "d/file"),
    Place("", "file", "file"),
    Place("d", "e/file", "d/e/file"),
    Place("", "link/file", "d/file"),
    Place("d/e", "file", "d/e/file"),
)


@dataclass(frozen=True, slots=True)
class Setting:
    """How an operation is done: which file, old content and new, with what, and by which jail."""

    place: Place = PLACES[0]
    old: bytes = b"the old version\n" * 9
    pieces: tuple[bytes, ...] = (b"the new ", b"version, which is longer\n" * 9)
    mode: int | None = 0o640
    mtime_ns: int | None = 1_700_000_000_123_456_789
    resolver: Callable[[Calls], Resolver] | None = None
    durable: bool = True


def settings(seed: int) -> Iterator[Setting]:
    """The plain setting, the same with the walk, and others by chance without end."""
    yield Setting()
    yield Setting(resolver=Walk)
    random = Random(seed)
    while True:
        sizes = [random.choice((0, 1, 999, 4096, 65_537, 200_000)) for _ in range(random.randint(0, 4))]
        yield Setting(
            place=random.choice(PLACES),
            old=random.randbytes(random.choice((0, 1, 4096, 100_000))),
            pieces=tuple(random.randbytes(size) for size in sizes),
            mode=random.choice((None, 0o600, 0o644)),
            mtime_ns=random.choice((None, 1)),
            resolver=random.choice((None, Walk)),
        )


def snapshot(root: Path) -> Tree:
    """What is on the disk."""
    found: Tree = {}
    for directory, directories, names in os.walk(root):
        if RESERVED in directories:
            directories.remove(RESERVED)
        for name in names + [name for name in directories if os.path.islink(f"{directory}/{name}")]:
            path = Path(directory, name)
            content = os.fsencode(os.readlink(path)) if path.is_symlink() else path.read_bytes()
            found[str(path.relative_to(root))] = content
        if not names and not directories:
            found[f"{Path(directory).relative_to(root)}/"] = b""
    return found


def left(root: Path) -> list[Path]:
    """The files in staging, wherever it is."""
    return [path for staging in root.rglob(RESERVED) for path in staging.iterdir()]


class Scenario(ABC):
    """One operation. `before` and `after` are the trees it leads from and to, `between` what it passes.

    `held` files stay in staging after a recovery: a living writer has them. `flushes`: what was unlinked is
    flushed, also when the operation fails then.
    """

    held = 0
    flushes = False

    def __init__(self, root: Path, setting: Setting) -> None:
        self.root = root
        self.setting = setting
        self.view = View(P(setting.place.base))
        self.path = P(setting.place.path)
        self.before: Tree = {"other": b"1", "d/other": b"2", "d/e/.other": b"3", "link": b"d"}
        self.after: Tree = {}
        self.between: list[Tree] = []

    def prepare(self) -> None:
        """Make the tree anew."""
        shutil.rmtree(self.root, ignore_errors=True)
        (self.root / "d/e").mkdir(parents=True)
        (self.root / "link").symlink_to("d")
        for path, content in self.before.items():
            if path != "link":
                (self.root / path).parent.mkdir(parents=True, exist_ok=True)
                assert not path.endswith("/"), "no scenario begins with an empty directory"
                (self.root / path).write_bytes(content)

    def jail(self, calls: Calls) -> Jail:
        """A jail on the tree; only what is called from then on is handed to `calls`.

        With plain calls it flushes nothing: nothing is proven then, it only shows that all is well.
        """
        durable = self.setting.durable and isinstance(calls, Fronted)
        jail = Jail(str(self.root), calls=calls, resolver=self.setting.resolver, durable=durable)
        if isinstance(calls, Fronted):
            calls.armed = True
        return jail

    @abstractmethod
    def run(self, jail: Jail) -> str:
        """Do it, and return what its caller would be told."""

    @abstractmethod
    def told(self) -> str:
        """What the caller must be told if it is done now and nothing goes wrong."""

    def truth(self, told: str) -> str:
        """What the caller had to be told, when a part of it may have been left out."""
        return told

    def finish(self) -> None:  # noqa: B027  # Few scenarios have others.
        """End what others did meanwhile."""

    def recover(self) -> int:
        """Clean up as the next start does, by a jail of its own; how many files that removed."""
        jail = Jail(str(self.root))
        try:
            return jail.recover([P(""), self.view.base])
        finally:
            jail.close()


class Upload(Scenario):
    """A file gets a new version."""

    replace = True
    exists = False

    def __init__(self, root: Path, setting: Setting) -> None:
        super().__init__(root, setting)
        real = setting.place.real
        if self.exists:
            self.before[real] = setting.old
        self.after = {**self.before, real: b"".join(setting.pieces)}

    def stage(self, jail: Jail) -> Staged:
        """Stage the whole content."""
        staged = jail.stage(self.view, self.path)
        try:
            for piece in self.setting.pieces:
                staged.write(piece)
        except BaseException:
            staged.discard()
            raise
        return staged

    def run(self, jail: Jail) -> str:
        staged = self.stage(jail)
        staged.commit(mode=self.setting.mode, mtime_ns=self.setting.mtime_ns, replace=self.replace)
        return "committed"

    def told(self) -> str:
        return "committed"


class Create(Upload):
    """A file that was not there."""


class Overwrite(Upload):
    """A file that was there."""

    exists = True


class CreateOnly(Upload):
    """A file that must not be replaced; it is not there."""

    replace = False

    def run(self, jail: Jail) -> str:
        try:
            return super().run(jail)
        except FileExistsError:
            return "refused"

    def told(self) -> str:
        return "refused" if (self.root / self.setting.place.real).exists() else "committed"


class CreateRefused(CreateOnly):
    """A file that must not be replaced; it is there."""

    exists = True

    def __init__(self, root: Path, setting: Setting) -> None:
        super().__init__(root, setting)
        self.after = self.before


class Discard(Upload):
    """A new version that is thrown away."""

    exists = True

    def __init__(self, root: Path, setting: Setting) -> None:
        super().__init__(root, setting)
        self.after = self.before

    def run(self, jail: Jail) -> str:
        self.stage(jail).discard()
        return "discarded"

    def told(self) -> str:
        return "discarded"


class Beside(Overwrite):
    """A new version, while another writer holds a file in the same staging."""

    held = 1

    def prepare(self) -> None:
        super().prepare()
        self._other_jail = Jail(str(self.root), durable=False)
        self._other = self._other_jail.stage(self.view, P("living"))
        self._other.write(b"alive")

    def finish(self) -> None:
        self._other.commit()
        self._other_jail.close()
        path = self.root / self.setting.place.base / "living"
        assert path.read_bytes() == b"alive", "a living writer was harmed"
        path.unlink()


class Remove(Scenario):
    """Files of one directory go, one after the other; a link goes, not what it leads to."""

    flushes = True
    victims = ("a", "b", "to-a", "c")

    def __init__(self, root: Path, setting: Setting) -> None:
        super().__init__(root, setting)
        self._place = os.path.dirname(setting.place.real)
        paths = [os.path.join(self._place, name) for name in self.victims]
        self.after = dict(self.before)
        for path in paths:
            self.before[path] = b"a" if path.endswith("to-a") else setting.old
        self.between = self.passed(paths)

    def passed(self, paths: list[str]) -> list[Tree]:
        """The trees between the removals."""
        return [
            {path: content for path, content in self.before.items() if path not in paths[:number]}
            for number in range(1, len(paths))
        ]

    def prepare(self) -> None:
        super().prepare()
        link = self.root / self._place / "to-a"
        link.unlink()
        link.symlink_to("a")

    def run(self, jail: Jail) -> str:
        return str(jail.remove(self.view, self.path.parent, ("missing", *self.victims, "a", "missing")))

    def told(self) -> str:
        return str(len(snapshot(self.root)) - len(self.after))


class RemoveChosen(Remove):
    """Files that are chosen from a listing go, in the order of the disk."""

    def passed(self, paths: list[str]) -> list[Tree]:
        trees = [self.before]
        for path in paths:
            trees += [{name: tree[name] for name in tree if name != path} for tree in trees]
        return trees

    def run(self, jail: Jail) -> str:
        return str(jail.remove_chosen(self.view, self.path.parent, lambda entry: entry.name in self.victims))


class Recover(Scenario):
    """What killed writers left goes."""

    orphans = 3

    def __init__(self, root: Path, setting: Setting) -> None:
        super().__init__(root, setting)
        self.before[setting.place.real] = setting.old
        self.after = self.before

    def prepare(self) -> None:
        super().prepare()
        staging = self.root / self.setting.place.base / RESERVED
        staging.mkdir(mode=0o700)
        for number in range(self.orphans):
            (staging / f"{PREFIX}{number:024x}").write_bytes(b"".join(self.setting.pieces[:number]))

    def run(self, jail: Jail) -> str:
        return str(jail.recover([P(""), self.view.base]))

    def told(self) -> str:
        return str(len(left(self.root)))

    def truth(self, told: str) -> str:
        return str(int(told) - len(left(self.root)))


class Compress(Upload):
    """The work of a job: a tree becomes an archive that was not there, with checksums.

    The notes for the end of the archive are too long for the memory: they lie in staging, too.
    """

    form = ArchiveForm.TAR_GZ

    def __init__(self, root: Path, setting: Setting) -> None:
        super().__init__(root, setting)
        base = P(setting.place.base)
        self._tree = base / "tree"
        self._order = Order(
            self._tree,
            base + self.path,
            self.form,
            sums=True,
            base=base,
            exported=base,
            hidden=True,
            place="",
        )
        self._files = {"file": b"".join(setting.pieces), "link": b"".join(setting.pieces)}
        place = str(self._tree).lstrip("/")
        self.before |= {f"{place}/{name}": content for name, content in self._files.items()}
        self.before[f"{place}/link"] = b"file"
        self.after = {**self.before, setting.place.real: self._make()}

    def _make(self) -> bytes:
        """The archive as it must be: the same tree gives the same bytes."""
        self.prepare()
        jail = self.jail(Calls())
        try:
            self._said = self.run(jail)
        finally:
            jail.close()
        archive = (self.root / self.setting.place.real).read_bytes()
        sums = [f"{sha256(self._files[name]).hexdigest()}  tree/{name}\n" for name in sorted(self._files)]
        expected = {f"tree/{name}": content for name, content in self._files.items()}
        assert held_by(archive) == expected | {"SHA256SUMS": "".join(sums).encode()}
        assert self._said.startswith(sha256(archive).hexdigest())
        return archive

    def prepare(self) -> None:
        super().prepare()
        tree = self.root / str(self._tree).lstrip("/")
        (tree / "link").unlink()
        (tree / "link").symlink_to("file")
        for path in (*tree.rglob("*"), tree):
            os.utime(path, (1e9, 1e9), follow_symlinks=False)

    def run(self, jail: Jail) -> str:
        target = self.root / str(self._order.target).lstrip("/")
        parent = target.parent.stat()
        order = self._order._replace(place=f"{parent.st_dev}:{parent.st_ino}/{target.name}")
        with patch.object(notes, "_IN_MEMORY", 64), closing(Compression(jail, 1)) as work:
            made = work(order.as_json(), Meter(lambda: 0.0))
        mode = (self.root / self.setting.place.real).stat().st_mode
        return f"{made['sha256']}, {stat.filemode(mode)}"

    def told(self) -> str:
        return self._said


class CompressAgain(Compress):
    """The same over an archive that was there, and is nobody else's. A zip archive notes its members, too."""

    exists = True
    form = ArchiveForm.ZIP

    def __init__(self, root: Path, setting: Setting) -> None:
        super().__init__(root, setting)
        assert self._said.endswith(" -rw-------")

    def prepare(self) -> None:
        super().prepare()
        (self.root / self.setting.place.real).chmod(0o600)


def held_by(archive: bytes) -> Tree:
    """The files in an archive, which is read to its end."""
    if is_zipfile(BytesIO(archive)):
        with ZipFile(BytesIO(archive)) as members:
            return {info.filename: members.read(info) for info in members.infolist() if not info.is_dir()}
    with tarfile.open(fileobj=BytesIO(archive), mode="r:gz") as tar:
        found = {member.name: tar.extractfile(member) for member in tar if member.isfile()}
        return {name: content.read() for name, content in found.items() if content is not None}


class InPlace(Overwrite):
    """The control: written over the old version itself, which no proof may let pass."""

    def jail(self, calls: Calls) -> Jail:
        self._calls = calls
        return super().jail(calls)

    def run(self, jail: Jail) -> str:
        calls = self._calls
        descriptor = calls.open(
            str(self.root / self.setting.place.real), os.O_WRONLY | os.O_TRUNC, dir_fd=None
        )
        try:
            for piece in self.setting.pieces:
                rest = memoryview(piece)
                while rest:
                    rest = rest[calls.write(descriptor, rest) :]
        finally:
            calls.close(descriptor)
        return "committed"


SCENARIOS = (
    *(Create, Overwrite, CreateOnly, CreateRefused, Discard, Beside),
    *(Remove, RemoveChosen, Recover, Compress, CompressAgain),
)
