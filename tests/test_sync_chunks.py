"""Files as chunks, and in pieces of others."""

from __future__ import annotations

import random
from collections.abc import Sequence
from io import BytesIO
from itertools import accumulate

from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fileexport.sync.chunks import (
    AVERAGES,
    FINE,
    LITERAL,
    Chunk,
    Piece,
    average_for,
    cut,
    pieces_from,
    recipe,
)

AVERAGE = AVERAGES[0]


def chunks(content: bytes, average: int = AVERAGE) -> list[Chunk]:
    """The chunks of some bytes."""
    return list(cut(BytesIO(content).readinto, average))


class CutTests(SynchronousTestCase):
    """`cut`."""

    content = random.Random(1).randbytes(3 << 20)

    def test_chunks(self) -> None:
        """The chunks are the file in its order, named by their own hashes, within the bounds of size."""
        for average in (FINE, *AVERAGES):
            found = chunks(self.content, average)
            ends = list(accumulate(chunk.size for chunk in found))
            self.assertEqual(ends[-1], len(self.content))
            for end, (size, digest) in zip(ends, found, strict=True):
                self.assertEqual(digest, blake3(self.content[end - size : end]).digest())
                self.assertLessEqual(size, 4 * average)
            self.assertTrue(all(4 * chunk.size >= average for chunk in found[:-1]))

    def test_steps(self) -> None:
        """How the bytes come makes no difference."""
        stream = BytesIO(self.content)
        steps = random.Random(2)

        def read_into(view: memoryview) -> int:
            return stream.readinto(view[: steps.randint(1, 50_000)])

        self.assertEqual(list(cut(read_into, AVERAGE)), chunks(self.content))

    def test_insertion(self) -> None:
        """Bytes in front change the first chunks alone."""
        before, after = chunks(self.content), chunks(b"a few more" + self.content)
        self.assertGreater(len(set(before) & set(after)), len(before) - 4)

    def test_empty(self) -> None:
        """An empty file has no chunks."""
        self.assertEqual(chunks(b""), [])

    def test_check(self) -> None:
        """The check is asked before every read, and ends the work by what it raises."""
        left = [None] * 3
        stream = BytesIO(self.content)

        def check() -> None:
            left.pop()

        with self.assertRaises(IndexError):
            list(cut(lambda view: stream.readinto(view[:1000]), AVERAGE, check))
        self.assertEqual(stream.tell(), 3000)

    def test_error(self) -> None:
        """What the reader raises comes out."""

        def read_into(view: memoryview) -> int:
            raise OSError("gone")

        with self.assertRaises(OSError):
            list(cut(read_into, AVERAGE))

    def test_guesses(self) -> None:
        """Guesses, right ones and wrong ones of any size, change nothing."""
        expected = chunks(self.content)
        chance = random.Random(3)
        told = [*expected, *chunks(self.content[::-1]), *(Chunk(size, bytes(32)) for size in (1, 1 << 30))]

        def right(last: Chunk | None) -> Chunk | None:
            at = 0 if last is None else expected.index(last) + 1
            return expected[at] if at < len(expected) else None

        def some(last: Chunk | None) -> Chunk | None:
            return chance.choice((right(last), None, chance.choice(told)))

        for guess in (right, some):
            found = list(cut(BytesIO(self.content).readinto, AVERAGE, lambda: None, guess))
            self.assertEqual(found, expected)

    def test_short_guesses(self) -> None:
        """Only the last chunk is shorter than chunks are, whatever is guessed."""
        content = bytes(5 * AVERAGE + 3)
        short = chunks(content[:1])[0]
        found = list(cut(BytesIO(content).readinto, AVERAGE, lambda: None, lambda last: short))
        self.assertTrue(found == chunks(content), len(found))

    def test_wrong_average(self) -> None:
        """Only the averages of the specification are cut."""
        for average in (0, 1, AVERAGE + 1, 1 << 30):
            with self.assertRaises(ValueError):
                list(cut(BytesIO(b"x").readinto, average))

    def test_average(self) -> None:
        """Larger files are cut into larger chunks."""
        for size, average in (
            (0, AVERAGES[0]),
            ((64 << 20) - 1, AVERAGES[0]),
            (64 << 20, AVERAGES[1]),
            ((1 << 30) - 1, AVERAGES[1]),
            (1 << 30, AVERAGES[2]),
            (1 << 60, AVERAGES[2]),
        ):
            self.assertEqual(average_for(size), average, size)


def text(content: str) -> list[Chunk]:
    """A chunk for each letter, as long as its place in the alphabet."""
    return [Chunk(ord(letter) - ord("a") + 1, letter.encode()) for letter in content]


def spelled(content: str) -> str:
    """The file of which `text` has the chunks."""
    return "".join(letter * (ord(letter) - ord("a") + 1) for letter in content)


def put_together(pieces: Sequence[Piece], new: str, bases: Sequence[str]) -> str:
    """The file that the pieces tell."""
    files = [spelled(base) for base in bases]
    whole = spelled(new)
    return "".join(
        (whole if base == LITERAL else files[base])[offset : offset + size] for base, offset, size in pieces
    )


_texts = st.text("abcd", max_size=12)


class RecipeTests(SynchronousTestCase):
    """`recipe` and `pieces_from`."""

    def told(self, new: str, *bases: str) -> list[Piece]:
        return list(recipe(text(new), [text(base) for base in bases]))

    def test_equal(self) -> None:
        """A file that is there already is one piece."""
        self.assertEqual(self.told("abcd", "abcd"), [Piece(0, 0, 10)])

    def test_nothing_known(self) -> None:
        """Without bases all is literal, in one piece."""
        self.assertEqual(self.told("abcd"), [Piece(LITERAL, 0, 10)])
        self.assertEqual(self.told("ab", "cd"), [Piece(LITERAL, 0, 3)])
        self.assertEqual(self.told("", "ab"), [])

    def test_edit(self) -> None:
        """What changed in the middle is literal, the rest is not."""
        self.assertEqual(self.told("abxcd", "abecd"), [Piece(0, 0, 3), Piece(LITERAL, 3, 24), Piece(0, 8, 7)])

    def test_runs(self) -> None:
        """Of equal chunks the one is taken that stands behind the last one."""
        self.assertEqual(self.told("aab", "aaab"), [Piece(0, 0, 2), Piece(0, 3, 2)])
        self.assertEqual(self.told("bac", "cab", "bac"), [Piece(0, 4, 2), Piece(0, 3, 1), Piece(0, 0, 3)])
        self.assertEqual(self.told("dabc", "abc", "dab"), [Piece(1, 0, 7), Piece(0, 3, 3)])

    def test_zeros(self) -> None:
        """A file of equal chunks is taken from a shorter one of the same kind again and again."""
        self.assertEqual(self.told("aaaaa", "aa"), [Piece(0, 0, 2), Piece(0, 0, 2), Piece(0, 0, 1)])

    def test_sizes(self) -> None:
        """A base that claims another length for a hash has another chunk."""
        pieces = list(recipe([Chunk(2, b"x")], [[Chunk(3, b"x")]]))
        self.assertEqual(pieces, [Piece(LITERAL, 0, 2)])

    @given(_texts, st.lists(_texts, max_size=3))
    def test_any(self, new: str, bases: list[str]) -> None:
        """The pieces are the file, none is empty, and no two could be one."""
        pieces = self.told(new, *bases)
        self.assertEqual(put_together(pieces, new, bases), spelled(new))
        for first, second in zip(pieces, pieces[1:], strict=False):
            self.assertFalse(first.base == second.base and first.offset + first.size == second.offset)
        self.assertTrue(all(piece.size > 0 for piece in pieces))
        known = set("".join(bases))
        literal = sum(piece.size for piece in pieces if piece.base == LITERAL)
        self.assertEqual(literal, len(spelled("".join(letter for letter in new if letter not in known))))

    @given(_texts, st.lists(_texts, max_size=3), st.data())
    def test_rest(self, new: str, bases: list[str], data: st.DataObject) -> None:
        """Behind some bytes the pieces are the rest of the file."""
        pieces = self.told(new, *bases)
        offset = data.draw(st.integers(0, len(spelled(new))))
        rest = list(pieces_from(pieces, offset))
        self.assertEqual(put_together(rest, new, bases), spelled(new)[offset:])
        self.assertTrue(all(piece.size > 0 for piece in rest))
        self.assertEqual(rest[1:], pieces[len(pieces) - len(rest) + 1 :] if rest else [])
