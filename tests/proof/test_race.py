"""Another process swaps a directory and a link that leads outside, as fast as it can, while verbs run.

A check of names (`realpath`, then a prefix) is the control: it must be beaten in as many tries, or the swaps
were too slow to prove anything.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from twisted.python import log
from twisted.trial.unittest import SynchronousTestCase

from fileexport.disk.calls import Calls
from fileexport.disk.jail import Jail, View
from fileexport.disk.resolve import Openat2, Resolver, Walk
from fileexport.disk.scan import manifest_of, scan
from fileexport.errors import ConflictError
from fileexport.paths import RESERVED, RelPath
from tests.hostile import OPEN, SECRET

#: Tries of each strategy, over all verbs, and of the control.
TRIES = 200_000 if os.environ.get("FILEEXPORT_SOAK") else 20_000
#: Seconds for the first swap to be seen, and after which the swapping process ends whatever happens.
PATIENCE, LIFETIME = 60.0, 900.0

_RENAME_EXCHANGE = 2

P = RelPath.parse
Place = tuple[View, str]
Verb = Callable[[Jail, Place, int], object]

#: What is asked for: `swap` is now a directory, now a link to the directory outside; `through` is a link
#: that passes it, up and down again; `absolute` is swapped with a link of that kind. A caller's own part
#: may be the one that is swapped, too.
PLACES: tuple[Place, ...] = (
    (View(), "swap"),
    (View(), "swap/deep"),
    (View(), "through"),
    (View(), "absolute"),
    (View(P("swap")), ""),
    (View(P("through")), ""),
)
SWAPPED = ("swap", "absolute")


class RaceTests(SynchronousTestCase):
    """`escapes` must be 0 for both strategies, and must not be for the control."""

    def setUp(self) -> None:
        work = Path(self.mktemp()).resolve()
        self.root, self.outside = work / "root", work / "outside"
        for directory, content in ((self.outside, SECRET), *((self.root / name, OPEN) for name in SWAPPED)):
            (directory / "deep").mkdir(parents=True)
            for name in ("file", "deep/file"):
                (directory / name).write_text(content)
            (directory / content).touch()
            (directory / "deep" / content).touch()
        (self.root / "through").symlink_to("swap/deep/../../swap/deep")
        (self.root / "other-swap").symlink_to("../outside")
        (self.root / "other-absolute").symlink_to(self.outside)
        self.secrets = {
            (path.stat().st_dev, path.stat().st_ino) for path in (self.outside, *self.outside.rglob("*"))
        }
        self.victims = self.beneath_outside()
        self.found: Counter[str] = Counter()

    def beneath_outside(self) -> set[tuple[Path, int, int, int]]:
        """What is there, and as it was."""
        found = ((path, path.stat()) for path in self.outside.rglob("*"))
        return {(path, one.st_ino, one.st_mode, one.st_mtime_ns) for path, one in found}

    @contextmanager
    def swapping(self) -> Iterator[None]:
        """Have the other process swap, seen to do so."""
        child = os.fork()
        if child == 0:
            try:
                swap_for_ever(os.fsencode(self.root))
            finally:
                os._exit(1)
        try:
            self.wait_for_a_swap()
            yield
        finally:
            os.kill(child, signal.SIGKILL)
            status = os.waitpid(child, 0)[1]
        self.assertTrue(os.WIFSIGNALED(status), "it swapped to the end")

    def wait_for_a_swap(self) -> None:
        before, deadline = (self.root / "swap").lstat().st_ino, time.monotonic() + PATIENCE
        while (self.root / "swap").lstat().st_ino == before:
            self.assertLess(time.monotonic(), deadline, "nothing is swapped")

    # -- the verbs, and what they should not have found

    def open(self, jail: Jail, place: Place, number: int) -> None:
        view, path = place
        with jail.open(view, P(f"{path}/file")) as opened:
            self.found["escapes"] += SECRET.encode() in os.read(opened.descriptor, 99)

    def stat(self, jail: Jail, place: Place, number: int) -> None:
        view, path = place
        status = jail.stat(view, P(f"{path}/file" if number % 2 else path))
        self.found["escapes"] += (status.st_dev, status.st_ino) in self.secrets

    def entries(self, jail: Jail, place: Place, number: int) -> None:
        view, path = place
        self.found["escapes"] += SECRET in {entry.name for entry in jail.entries(view, P(path))}

    def stage(self, jail: Jail, place: Place, number: int) -> None:
        view, path = place
        with jail.stage(view, P(f"{path}/new-{number}")) as staged:
            staged.write(b"new")
            staged.commit()

    def remove(self, jail: Jail, place: Place, number: int) -> None:
        view, path = place
        # The one is outside only, the other was staged just before.
        self.found["escapes"] += jail.remove(view, P(path), [SECRET])
        self.found["escapes"] += jail.remove_chosen(view, P(path), lambda entry: entry.name == SECRET)
        jail.remove(view, P(path), [f"new-{number - 1}"])

    def upload(self, jail: Jail, place: Place, number: int) -> None:
        """Two ways to write, another name, and it is gone."""
        view, path = place
        batch = jail.batch(view, replace=True)
        try:
            batch.add(P(f"{path}/up-{number}"), b"new")
            batch.commit()
        finally:
            batch.discard()
        jail.partial(view, P(f"{path}/up-{number}"), size=0, key=b"key").commit()
        jail.rename(view, P(f"{path}/up-{number}"), view, P(f"{path}/moved"), replace=True)

    def tree(self, jail: Jail, place: Place, number: int) -> None:
        """A directory is made, filled, and removed with all that is in it."""
        view, path = place
        top = P(f"{path}/tree")
        jail.make_directory(view, top, exist_ok=True)
        jail.make_directory(view, top / "below", exist_ok=True)
        jail.make_file(view, top / "below" / "file", exist_ok=True)
        jail.remove_tree(view, top, recursive=True)
        with contextlib.suppress(OSError):
            # What is outside only.
            self.found["escapes"] += jail.remove_tree(view, P(f"{path}/{SECRET}"))

    def scan(self, jail: Jail, place: Place, number: int) -> None:
        view, path = place
        found = manifest_of(scan(jail, view, P(path)))
        self.found["escapes"] += SECRET in repr(found.folders)

    def steps(self, jail: Jail, place: Place, number: int) -> None:
        """Small changes in one go, to what is swapped too."""
        view, path = place
        made = P(f"{path}/made")
        with jail.steps(view) as steps:
            with contextlib.suppress(FileExistsError):
                steps.make(made)
            steps.link(made / "link", "..", True)
            steps.set(made, 1, 0o700)
            steps.set(P(f"{path}/file"), 1, 0o600)
            with contextlib.suppress(ConflictError):
                # A link now and then.
                steps.set(P(path), 1, 0o755)
            steps.move(made / "link", made / "moved", True)
            steps.remove(made / "moved")
            steps.remove(made)
            with contextlib.suppress(OSError):
                # What is outside only.
                steps.remove(P(f"{path}/{SECRET}"))
                self.found["escapes"] += 1

    def run_verbs(self, resolver: Callable[[Calls], Resolver]) -> None:
        """Every verb on every place in turn."""
        jail = Jail(str(self.root), resolver=resolver, durable=False)
        self.addCleanup(jail.close)
        verbs: tuple[Verb, ...] = (
            *(self.open, self.stat, self.entries, self.stage, self.remove),
            *(self.upload, self.tree, self.scan, self.steps),
        )
        for number in range(TRIES):
            verb, place = verbs[number % len(verbs)], PLACES[number // len(verbs) % len(PLACES)]
            try:
                verb(jail, place, number)
                self.found[f"{verb.__name__} found"] += 1
            except OSError as error:
                self.found[f"{verb.__name__} refused"] += 1
                self.found[os.strerror(error.errno or 0)] += 1
            except ConflictError:
                # Where a new file goes, its directory is another one by then.
                self.found[f"{verb.__name__} refused"] += 1

    def check(self, resolver: Callable[[Calls], Resolver]) -> None:
        with self.swapping():
            self.run_verbs(resolver)
        log.msg(f"{resolver}: {TRIES} tries, {dict(self.found)}")
        self.assertEqual(self.found["escapes"], 0)
        self.assertEqual(self.beneath_outside(), self.victims, "nothing outside was written or removed")
        self.assertEqual(list(self.root.rglob(f"{RESERVED}/*")), [], "nothing half-written is left")
        for name in ("open", "stat", "entries", "stage", "remove", "upload", "tree", "scan", "steps"):
            self.assertGreater(self.found[f"{name} found"], 0)
            self.assertGreater(self.found[f"{name} refused"], 0)

    def test_openat2(self) -> None:
        """With openat2 nothing outside is ever read, measured, listed, removed or written."""
        self.check(Openat2)

    def test_walk(self) -> None:
        """With the walk on descriptors nothing outside is ever read, measured, listed, removed or written."""
        self.check(Walk)

    def test_bound(self) -> None:
        """What is shared is what lies there: a link in its place that stays in the root is not followed."""
        shown = self.root / "shown"
        shown.mkdir()
        for name in ("file", "deep/file"):
            (shown / name).parent.mkdir(exist_ok=True)
            (shown / name).write_text(SECRET)
        (shown / SECRET).touch()
        (self.root / "other-swap").unlink()
        (self.root / "other-swap").symlink_to("shown")
        self.secrets = {(path.stat().st_dev, path.stat().st_ino) for path in (shown, *shown.rglob("*"))}
        places: tuple[Place, ...] = (
            (View(P("swap"), bound="directory"), ""),
            (View(P("swap/deep"), bound="directory"), ""),
            (View(P("swap/file"), bound="file"), ""),
        )
        for resolver in (Openat2, Walk):
            jail = Jail(str(self.root), resolver=resolver)
            self.addCleanup(jail.close)
            with self.swapping():
                for number in range(TRIES // 4):
                    self.look(jail, places[number % 3], number)
        log.msg(f"bound: {TRIES // 2} tries, {dict(self.found)}")
        self.assertEqual(self.found["escapes"], 0)
        self.assertGreater(self.found["found"], 0)
        self.assertGreater(self.found["refused"], 0)

    def look(self, jail: Jail, place: Place, number: int) -> None:
        """One of the verbs that show what is shared."""
        view, _ = place
        try:
            if view.bound == "file":
                with jail.open(view, P("")) as opened:
                    self.found["escapes"] += SECRET.encode() in os.read(opened.descriptor, 99)
            else:
                (self.open, self.stat, self.entries)[number // 3 % 3](jail, place, number)
            self.found["found"] += 1
        except OSError:
            self.found["refused"] += 1

    def test_control(self) -> None:
        """A check of names before opening by name is beaten: without that the proof would be void."""
        with self.swapping():
            escapes = sum(self.naive(os.path.join(PLACES[number % 4][1], "file")) for number in range(TRIES))
        log.msg(f"control: {escapes} escapes in {TRIES} tries")
        self.assertGreater(escapes, 0, "the swaps were too slow: the proof is void")

    def naive(self, path: str) -> bool:
        """Whether a read by name, checked by name just before, gave the secret."""
        whole = os.path.join(self.root, path)
        try:
            if not os.path.realpath(whole).startswith(f"{self.root}/"):
                return False
            with open(whole, encoding="utf-8") as file:
                return file.read() == SECRET
        except OSError:
            return False


def swap_for_ever(root: bytes) -> None:
    """Exchange each place with its other, until the parent is gone or has run out of patience."""
    exchange = ctypes.CDLL(None, use_errno=True).renameat2
    here = os.open(root, os.O_RDONLY)
    parent, deadline = os.getppid(), time.monotonic() + LIFETIME
    names = [(name.encode(), f"other-{name}".encode()) for name in SWAPPED]
    while os.getppid() == parent and time.monotonic() < deadline:
        for _ in range(500):
            for name, other in names:
                if exchange(here, name, here, other, _RENAME_EXCHANGE) != 0:
                    return
