"""The table of raw requests against the real site and door: every answer, its framing, and what follows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tests.http_client import Connection, HttpCase
from tests.raw_bodies import TABLE
from tests.raw_requests import CLOSED, GET, OPEN, Row, Then

#: Bytes of a request that is tried in all its splits, and of one that comes byte by byte.
_SHORT = 100
_LONG = 4000


class RawTests(HttpCase):
    """Each test counts deviations, so that one does not hide the others."""

    def setUp(self) -> None:
        super().setUp()
        self.write("f", b"a small file")
        self.write(b"\xc3\xa9", b"e")
        self.web = self.harness()

    def deviations(self, pieces: Sequence[bytes], answers: Sequence[int], then: Then) -> Iterator[str]:
        """What is not as the table says, where the request comes in these pieces."""
        connection = self.web.connect()
        connection.send(*pieces)
        try:
            for number, status in enumerate(answers, 1):
                yield from self.answer(connection, status, number == len(answers) and then is CLOSED)
        except AssertionError as error:
            yield str(error)
        if rest := self.rest(connection):
            yield f"more than was promised: {rest[:200]!r}"
        if connection.closed != (then is CLOSED):
            yield f"closed: {connection.closed}"
        recorded, self.web.recorded = self.web.recorded, []
        if [status for *_, status in recorded] != [abs(status) for status in answers]:
            yield f"recorded: {recorded}"
        connection.lose()

    def answer(self, connection: Connection, status: int, last: bool) -> Iterator[str]:
        """Read one answer strictly, and compare it."""
        answer = connection.receive(head=status < 0)
        if answer.status != abs(status):
            yield f"{answer.status} instead of {abs(status)}"
        if answer.fields("Connection") != (["close"] if last else []):
            yield f"Connection: {answer.fields('Connection')} of {answer.status}"
        if len(answer.fields("Date")) != 1 or answer.framing == "close":
            yield f"badly framed: {answer}"

    def rest(self, connection: Connection) -> bytes:
        """What came behind the answers; nothing in memory answers later than now."""
        if connection.wire.disconnecting or connection.wire.value():
            return connection.settle()
        return b""

    def run_table(self, split: str) -> None:
        """Every row of the table, in each way that `split` means."""
        wrong = []
        for row in TABLE:
            answers = (row[2],) if isinstance(row[2], int) else row[2]
            for pieces, more, then in _ways(split, row):
                found = list(self.deviations(pieces, (*answers, *more), then))
                wrong += [f"{row[0]} {[len(piece) for piece in pieces][:3]}: {what}" for what in found]
        self.assertEqual(wrong, [])

    def test_size(self) -> None:
        """The table is as long as was promised, and no two rows are the same."""
        self.assertGreaterEqual(len({data for _, data, *_ in TABLE}), 300)
        for column in (0, 1):
            self.assertEqual(len({row[column] for row in TABLE}), len(TABLE))

    def test_whole(self) -> None:
        """Each request in one piece is answered as the RFCs say."""
        self.run_table("whole")

    def test_byte_by_byte(self) -> None:
        """So it is byte by byte."""
        self.run_table("bytes")

    def test_split(self) -> None:
        """And a short one in two pieces, wherever it is cut."""
        self.run_table("two")

    def test_what_follows(self) -> None:
        """A request behind it is answered where the connection is open, and ignored where it is not."""
        self.run_table("followed")


def _ways(split: str, row: Row) -> Iterator[tuple[Sequence[bytes], tuple[int, ...], Then]]:
    """The pieces, the answers that there are beside the row's, and what becomes of the connection."""
    _, data, _, then = row
    if split == "whole":
        yield (data,), (), then
    elif split == "bytes" and len(data) <= _LONG:
        yield [data[at : at + 1] for at in range(len(data))], (), then
    elif split == "two" and len(data) <= _SHORT:
        yield from (((data[:at], data[at:]), (), then) for at in range(1, len(data)))
    elif split == "followed" and then is OPEN:
        yield (data + GET,), (200,), then
        yield (data, GET, GET), (200, 200), then
    elif split == "followed" and then is CLOSED:
        yield (data + GET,), (), then
        yield (data, GET), (), then
