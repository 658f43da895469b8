"""The database of one process: locks, durability, damage, and what the disk refuses."""

from __future__ import annotations

import errno
import os
import signal
import sqlite3
import stat
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

from twisted.trial.unittest import SynchronousTestCase

from fileexport.disk.database import DATABASE, LOCK, Database
from fileexport.errors import StateError
from tests.watched import in_child, open_descriptors

TABLES = (("CREATE TABLE words (word TEXT NOT NULL)",),)


class DatabaseCase(SynchronousTestCase):
    """Has an empty state directory; no descriptor may stay open."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        self.path = self.directory / DATABASE
        before = open_descriptors()
        self.addCleanup(lambda: self.assertEqual(open_descriptors() - before, set()))

    def open(self, migrations: tuple[tuple[str, ...], ...] = TABLES) -> Database:
        """The database, closed when the test ends."""
        database = Database(self.directory, migrations)
        self.addCleanup(database.close)
        return database

    def write(self, database: Database, *words: str) -> None:
        """Add words in one transaction."""
        with database.transaction() as t:
            for word in words:
                t.execute("INSERT INTO words VALUES (?)", (word,))

    def words(self) -> list[str]:
        """The words that the next to open the database finds, in order."""
        database = Database(self.directory, TABLES)
        try:
            with database.reading() as t:
                return [word for (word,) in t.execute("SELECT word FROM words ORDER BY rowid")]
        finally:
            database.close()

    def refused(self, migrations: tuple[tuple[str, ...], ...] = TABLES) -> str:
        """The sentence of the `StateError` that opening raises; it is one line."""
        error = self.assertRaises(StateError, Database, self.directory, migrations)
        self.assertNotIn("\n", str(error))
        return str(error)


class TransactionTests(DatabaseCase):
    """All or nothing."""

    def test_kept(self) -> None:
        """What was committed is there when the database is opened again."""
        database = Database(self.directory, TABLES)
        self.write(database, "one", "two")
        database.close()
        self.assertEqual(self.words(), ["one", "two"])

    def test_undone(self) -> None:
        """A transaction that raises leaves nothing, and the next one works."""
        database = self.open()
        with self.assertRaises(KeyError), database.transaction() as t:
            t.execute("INSERT INTO words VALUES ('lost')")
            raise KeyError
        with self.assertRaises(sqlite3.IntegrityError), database.transaction() as t:
            t.execute("INSERT INTO words VALUES ('lost'), (NULL)")
        self.write(database, "kept")
        database.close()
        self.assertEqual(self.words(), ["kept"])

    def test_settings(self) -> None:
        """Commits are flushed (FULL on a write-ahead log), references are enforced, nobody else is let in."""
        with self.open().reading() as t:
            for name, value in (
                ("journal_mode", "wal"),
                ("synchronous", 2),
                ("foreign_keys", 1),
                ("locking_mode", "exclusive"),
            ):
                self.assertEqual(t.execute(f"PRAGMA {name}").fetchone(), (value,), name)

    def test_modes(self) -> None:
        """Nobody else reads any of the files, also where the umask would let them or an older one did."""
        self.path.touch(mode=0o666)
        self.addCleanup(os.umask, os.umask(0))
        self.write(self.open(), "word")
        names = os.listdir(self.directory)
        self.assertEqual(sorted(names), [LOCK, DATABASE, f"{DATABASE}-wal"])
        for name in names:
            self.assertEqual(stat.S_IMODE((self.directory / name).stat().st_mode), 0o600, name)

    def test_full(self) -> None:
        """A full disk is ENOSPC; what was there stays, and there is room again later."""
        database = self.open()
        self.write(database, "old")
        with database.reading() as t:
            [pages] = t.execute("PRAGMA page_count").fetchone()
            t.execute(f"PRAGMA max_page_count = {pages}")
        error = self.assertRaises(OSError, self.write, database, "x" * 20_000)
        self.assertEqual((error.errno, error.filename), (errno.ENOSPC, str(self.path)))
        with database.reading() as t:
            t.execute("PRAGMA max_page_count = 10000")
        self.write(database, "new")
        database.close()
        self.assertEqual(self.words(), ["old", "new"])

    def test_damaged_while_open(self) -> None:
        """Damage that is met later is a `StateError` that names the file."""
        database = self.open()
        self.write(database, *("word" * 500 for _ in range(20)))
        database.close()
        damaged = self.open()
        with self.path.open("r+b") as file:
            file.seek(4096)
            file.write(b"\xff" * (self.path.stat().st_size - 4096))
        with damaged.reading() as t:
            t.execute("PRAGMA shrink_memory")
        with self.assertRaises(StateError) as raised, damaged.reading() as t:
            t.execute("SELECT * FROM words ORDER BY word").fetchall()
        self.assertIn(str(self.path), str(raised.exception))


class OpenTests(DatabaseCase):
    """Opening, and refusing to."""

    def test_in_use(self) -> None:
        """A second daemon is told what to do, and the first one goes on."""
        database = self.open()
        said: list[str] = []
        for process in (lambda function: function(), in_child):
            process(lambda: said.append(self.refused()))
        self.assertEqual(
            said, ["the state directory is in use by another daemon: --state gives this one its own"]
        )
        self.write(database, "word")

    def test_released(self) -> None:
        """Whoever closes it, or fails to open it, lets others have it."""
        self.path.write_bytes(b"nonsense" * 1000)
        self.refused()
        self.path.unlink()
        Database(self.directory, TABLES).close()
        self.open()

    def test_released_by_a_kill(self) -> None:
        """So does whoever is killed: a process that holds the database keeps it until kill -9, not longer."""
        ready, told = os.pipe()
        child = os.fork()
        if not child:
            try:
                self.write(Database(self.directory, TABLES), "committed")
                os.write(told, b"!")
                signal.pause()
            finally:
                os._exit(1)
        try:
            os.close(told)
            self.assertEqual(os.read(ready, 1), b"!")
            self.assertIn("in use", self.refused())
        finally:
            os.close(ready)
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        self.assertEqual(self.words(), ["committed"])

    def test_damaged(self) -> None:
        """A damaged database is refused, by name and with what to do; it is left as it is."""
        database = Database(self.directory, TABLES)
        self.write(database, *("word" * 500 for _ in range(20)))
        database.close()
        sound = self.path.read_bytes()
        for content in (
            b"this is no database" * 300,
            sound[:4096] + b"\xff" * (len(sound) - 4096),
            sound[: len(sound) // 2],
        ):
            self.path.write_bytes(content)
            self.assertEqual(
                self.refused(), f"{self.path}: the database is damaged: move it away and start again"
            )
            self.assertEqual(self.path.read_bytes()[100:], content[100:])

    def test_moved_away(self) -> None:
        """After a damaged database was moved away, its log does not spoil the new one."""
        self.assertEqual(in_child(lambda: self.write(Database(self.directory, TABLES), "old")), 0)
        self.path.rename(self.directory / "away")
        self.assertTrue((self.directory / f"{DATABASE}-wal").exists())
        self.assertEqual(self.words(), [])

    def test_refused_by_the_disk(self) -> None:
        """Whatever else keeps a database from being opened is one line with its name."""
        for kind, words in (("directory", "Is a directory"), ("link", "symbolic links")):
            self.path.mkdir() if kind == "directory" else self.path.symlink_to("elsewhere")
            self.assertTrue(self.refused().startswith(f"{self.path}: "))
            self.assertIn(words, self.refused())
            self.path.rmdir() if kind == "directory" else self.path.unlink()
        self.assertIn("No such file", str(self.assertRaises(StateError, Database, Path("missing"), TABLES)))

    def test_foreign(self) -> None:
        """A database of somebody else's with a table of our name is refused, not changed."""
        foreign = sqlite3.connect(self.path)
        foreign.execute("CREATE TABLE words (number)")
        foreign.close()
        self.assertIn("already exists", self.refused())


class MigrationTests(DatabaseCase):
    """From each version of the tables to the next."""

    NEXT = (*TABLES, ("ALTER TABLE words ADD COLUMN size INTEGER", "UPDATE words SET size = length(word)"))

    def sizes(self) -> list[Any]:
        """What the second version has."""
        database = Database(self.directory, self.NEXT)
        try:
            with database.reading() as t:
                return t.execute("SELECT word, size FROM words").fetchall()
        finally:
            database.close()

    def test_next(self) -> None:
        """An older database becomes a newer one with what is in it, once."""
        database = Database(self.directory, TABLES)
        self.write(database, "four")
        database.close()
        self.assertEqual([self.sizes(), self.sizes()], [[("four", 4)]] * 2)

    def test_newer(self) -> None:
        """One that a newer version made is refused: what we do not know we might spoil."""
        Database(self.directory, self.NEXT).close()
        self.assertEqual(
            self.refused(),
            f"{self.path}: a newer fileexport made it (version 2, this one knows 1)",
        )

    def test_failed(self) -> None:
        """A step that fails leaves the database as it was."""
        self.words()
        self.assertIn("no such table", self.refused((*TABLES, (*self.NEXT[1], "DROP TABLE missing"))))
        self.assertEqual(self.sizes(), [])


class KillTests(DatabaseCase):
    """A process that is killed at any point."""

    def killed(self, steps: int, work: Callable[[Database], object]) -> bool:
        """Do something in a process that ends without warning at that step of SQLite's; whether it was."""

        class Mortal(sqlite3.Connection):
            def __init__(self, *arguments: Any, **keywords: Any) -> None:
                super().__init__(*arguments, **keywords)
                left = iter(range(steps))
                self.set_progress_handler(lambda: next(left, None) is None and os._exit(9), 1)

        def run() -> None:
            with patch.object(sqlite3, "connect", partial(sqlite3.connect, factory=Mortal)):
                work(Database(self.directory, TABLES))

        return in_child(run) == 9

    def test_any_point(self) -> None:
        """Transactions are there in order and whole: all that returned, and perhaps the next one."""
        said = self.directory / "said"

        def work(database: Database) -> None:
            for number in range(5):
                self.write(database, f"{number} first", f"{number} second")
                with said.open("a") as file:
                    file.write(f"{number}\n")

        steps = 0
        while self.killed(steps, work):
            acknowledged = len(said.read_text().splitlines()) if said.exists() else 0
            words = self.words()
            expected = [f"{number} {which}" for number in range(5) for which in ("first", "second")]
            self.assertEqual(words, expected[: len(words)])
            self.assertIn(len(words), (acknowledged * 2, acknowledged * 2 + 2))
            for path in self.directory.iterdir():
                path.unlink()
            steps += 7
        self.assertGreater(steps, 100)
        self.assertEqual(len(self.words()), 10)
