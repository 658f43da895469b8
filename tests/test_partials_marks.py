"""Files of which a part is taken back, and files of a size that nobody said."""

from __future__ import annotations

import errno
from typing import Any

from blake3 import blake3

from fileexport.disk import partials
from fileexport.disk.calls import Calls
from fileexport.disk.jail import Jail
from fileexport.disk.partials import UNKNOWN_SIZE, Partial
from tests.test_partials import PartialsCase
from tests.watched import in_child


class _FailingOnce(Calls):
    """The disk is full for the next call of this `name`."""

    name = ""

    def write(self, descriptor: int, data: bytes | memoryview) -> int:
        self._fail("write")
        return super().write(descriptor, data)

    def cut(self, descriptor: int, size: int) -> None:
        self._fail("cut")
        super().cut(descriptor, size)

    def pwrite(self, descriptor: int, data: bytes, offset: int) -> int:
        self._fail("pwrite")
        return super().pwrite(descriptor, data, offset)

    def _fail(self, name: str) -> None:
        if self.name == name:
            self.name = ""
            raise OSError(errno.ENOSPC, "full")


class MarkTests(PartialsCase):
    """`mark`, `rewind`, `accept`."""

    def marked(self, content: bytes = b"0123", **how: Any) -> Partial:
        """A partial whose next content is not believed yet."""
        partial = self.begin(**how)
        partial.write(content)
        partial.mark()
        return partial

    def test_rewound(self) -> None:
        """What came since the mark is gone from the file and its hash, also where less comes then."""
        for key, size in ((b"source", 8), (None, UNKNOWN_SIZE)):
            partial = self.begin(key=key, size=size)
            partial.write(b"0123")
            mark = partial.mark()
            self.assertEqual(mark.offset, 4)
            partial.write(b"wrong and long" if key is None else b"no")
            partial.rewind(mark)
            self.assertEqual(partial.offset, 4)
            for piece in (b"4", b"567"):
                partial.write(piece)
            self.assertEqual(partial.hasher.digest(), blake3(b"01234567").digest())
            partial.commit()
            self.assertEqual((self.file.read_bytes(), self.left()), (b"01234567", []))

    def test_again(self) -> None:
        """It can be taken back again and again, to the same place or behind what was accepted."""
        partial = self.begin()
        for piece in (b"01", b"234", b"56789"):
            for wrong in (b"x", b"", b"yyyy"):
                mark = partial.mark()
                partial.write(wrong)
                partial.rewind(mark)
            partial.mark()
            partial.write(piece)
            partial.accept()
        partial.commit()
        self.assertEqual(self.file.read_bytes(), b"0123456789")

    def test_wrong_marks(self) -> None:
        """One mark is open at a time, and only that one leads back."""
        partial = self.begin()
        first = partial.mark()
        self.assertRaises(ValueError, partial.mark)
        partial.accept()
        self.assertRaises(ValueError, partial.rewind, first)
        partial.write(b"0123")
        second = partial.mark()
        self.assertRaises(ValueError, partial.rewind, first)
        partial.rewind(second)
        self.assertRaises(ValueError, partial.rewind, second)
        partial.discard()

    def test_suspended(self) -> None:
        """What was not accepted is not kept; what was accepted is, or nothing where nothing was."""
        partial = self.marked()
        partial.write(b"45")
        partial.suspend()
        self.assertEqual(self.taken_up(), 4)
        partial = self.marked(b"")
        partial.write(b"0123")
        partial.suspend()
        self.assertEqual(self.left(), [])

    def test_killed(self) -> None:
        """Nothing behind a mark is continued after a kill, however much of it came; what is accepted is."""
        self.patch(partials, "_NOTE_EVERY", 2)

        def write(*, accept: bool) -> None:
            partial = self.marked(b"012")
            for byte in b"345678":
                partial.write(bytes([byte]))
            if accept:
                partial.accept()

        for accept, offset in ((False, 3), (True, 9)):
            self.assertEqual(in_child(lambda: write(accept=accept)), 0)  # noqa: B023  # called at once
            partial = self.begin()
            self.assertEqual(partial.offset, offset)
            partial.write(b"0123456789"[offset:])
            partial.commit()
            self.assertEqual((self.file.read_bytes(), self.left()), (b"0123456789", []))

    def test_accepted_at_once(self) -> None:
        """Without a mark, too, what came is noted when it is accepted; nothing new costs nothing."""

        def write() -> None:
            partial = self.begin()
            partial.write(b"01234")
            partial.accept()

        self.assertEqual(in_child(write), 0)
        partial = self.begin()
        self.assertEqual(partial.offset, 5)
        seen: list[str] = []
        partial.discard()
        partial = self.begin(jail=self.watched(lambda name, *_: seen.append(name)))
        partial.write(b"01234")
        partial.accept()
        del seen[:]
        partial.accept()
        partial.mark()
        partial.accept()
        self.assertEqual(seen, [])
        partial.discard()

    def test_flushes(self) -> None:
        """Content is flushed before the journal vouches for it as flushed, also when it is accepted late."""
        self.patch(partials, "_NOTE_EVERY", 1)
        self.patch(partials, "_FLUSH_EVERY", 4)
        seen: list[str] = []
        partial = self.begin(jail=self.watched(lambda name, *_: seen.append(name)))
        del seen[:]
        partial.mark()
        for piece in (b"012", b"345"):
            partial.write(piece)
        partial.accept()
        written = [name for name in seen if name in ("write", "pwrite", "fdatasync")]
        self.assertEqual(written, ["write", "write", "fdatasync", "pwrite", "pwrite"])
        partial.discard()

    def test_accepted_flushed(self) -> None:
        """What is accepted is on stable storage, content and journal; a whole file waits for its commit."""
        flushed = "write fdatasync pwrite pwrite fsync"
        for durable, key, pieces, expected in (
            (True, b"source", (b"01",), flushed),
            (True, b"source", (b"01", b"23"), f"{flushed} {flushed}"),
            (True, b"source", (b"01", b"23456789"), f"{flushed} write pwrite"),
            (False, b"source", (b"01",), "write pwrite"),
            (True, None, (b"01",), "write"),
        ):
            seen: list[str] = []
            jail = self.watched(lambda name, *_: seen.append(name), durable=durable)  # noqa: B023  # its own
            partial = self.begin(key=key, jail=jail)
            del seen[:]
            for piece in pieces:
                partial.write(piece)
                partial.accept()
                # Nothing is new.
                partial.accept()
            self.assertEqual(" ".join(seen), expected)
            partial.discard()

    def test_noted_before(self) -> None:
        """What the journal knows already, but nobody flushed, is flushed when it is accepted."""
        self.patch(partials, "_NOTE_EVERY", 1)
        seen: list[str] = []
        partial = self.begin(jail=self.watched(lambda name, *_: seen.append(name)))
        partial.write(b"01")
        del seen[:]
        partial.accept()
        self.assertEqual(seen, ["fdatasync", "pwrite", "pwrite", "fsync"])
        partial.discard()

    def test_interrupted(self) -> None:
        """A write that a signal interrupted is forgiven by going back before it."""
        interrupted = False

        def interrupt(name: str, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
            if interrupted and name == "write":
                raise KeyboardInterrupt

        partial = self.begin(jail=self.watched(interrupt))
        partial.write(b"01234")
        mark = partial.mark()
        interrupted = True
        self.assertRaises(KeyboardInterrupt, partial.write, b"567")
        interrupted = False
        self.fails(errno.EIO, partial.write, b"8")
        partial.rewind(mark)
        partial.write(b"56789")
        partial.accept()
        partial.commit()
        self.assertEqual(self.file.read_bytes(), b"0123456789")

    def test_failed(self) -> None:
        """One that the disk failed is not: it is suspended, and what was flushed before is kept."""
        self.patch(partials, "_NOTE_EVERY", 4)
        self.patch(partials, "_FLUSH_EVERY", 4)
        for name, verb in (("write", "write"), ("cut", "rewind"), ("pwrite", "accept")):
            calls = _FailingOnce()
            jail = Jail(str(self.root), calls=calls)
            self.addCleanup(jail.close)
            partial = self.begin(jail=jail)
            partial.write(b"0123")
            mark = partial.mark()
            partial.write(b"45")
            calls.name = name
            arguments = {"write": (b"6",), "rewind": (mark,), "accept": ()}[verb]
            self.fails(errno.ENOSPC, getattr(partial, verb), *arguments)
            for again in (partial.accept, lambda: partial.write(b"6")):  # noqa: B023  # called at once
                self.fails(errno.EIO, again)
            if verb != "accept":
                self.fails(errno.EIO, partial.rewind, mark)
            partial.suspend()
            self.assertEqual(self.taken_up(), 4)
            self.assertEqual((self.file.read_text(), self.left()), ("old", []))

    def test_committed(self) -> None:
        """What was not accepted is never committed."""
        partial = self.marked()
        self.assertRaises(RuntimeError, partial.commit)
        self.assertEqual((self.file.read_text(), self.left()), ("old", []))


class IdentityTests(PartialsCase):
    """What the committed file will be."""

    def test_same(self) -> None:
        """It is the same before and after the commit, and after a break; at the end there is none."""
        partial = self.begin()
        partial.write(b"01234")
        identity = partial.identity
        partial.suspend()
        partial = self.begin()
        self.assertEqual(partial.identity, identity)
        partial.write(b"56789")
        partial.commit()
        status = self.file.stat()
        self.assertEqual((status.st_dev, status.st_ino), identity)
        with self.assertRaises(OSError):
            partial.identity  # noqa: B018  # asking is what fails
