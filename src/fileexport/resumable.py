"""Uploads that outlive their connections, and the daemon: begun, continued, finished, forgotten.

What came lies in staging beside its journal (`fileexport.disk.partials`); whose it is and where it goes is in
the state (`fileexport.disk.uploads_store`). An upload that is written to stays open for a while, so that its
next part need not read and hash again what is there. Everything here belongs to the reactor's thread, but
what `resumable_files` does: that blocks, and runs in a pool.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import NamedTuple

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.defer import TimeoutError as TookTooLong
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from fileexport.disk.uploads_store import UploadRow, UploadsStore
from fileexport.errors import BusyError, ConflictError, OverloadedError, PeerGone
from fileexport.exports import Exports
from fileexport.paths import RelPath
from fileexport.pools import Worker, surely
from fileexport.resumable_files import Check, Filing, Part, Wish
from fileexport.tokens import Principal
from fileexport.uploads import Upload

#: Uploads that are open; the one that was idle longest makes way for another one.
MAX_OPEN = 256
#: Seconds that one is kept open while nothing comes: so long its name is taken. It spares the next part to
#: read again what is there. And those that a request waits for the one before it.
IDLE_TIME = 3.0
PATIENCE = 10.0


class WrongOffset(ConflictError):
    """This is not where the upload goes on; `offset` is."""

    def __init__(self, offset: int) -> None:
        super().__init__(f"the upload goes on at byte {offset}")
        self.offset = offset


class Client(NamedTuple):
    """Who asks: what others read who come meanwhile, how to break their connection, whether it is gone."""

    who: Principal
    holder: str
    cut: Callable[[], object]
    is_gone: Callable[[], bool]


class Standing(NamedTuple):
    """An upload, and how many bytes of it are there."""

    row: UploadRow
    offset: int


#: Takes a function and the number of bytes that are missing, and hands what comes to it: in a thread, piece
#: by piece.
Receive = Callable[[Callable[[bytes], None], int], Awaitable[object]]


def _nothing() -> None:
    """Nobody's connection is to be broken."""


@dataclass(eq=False, slots=True)
class _Item:
    """What is in memory of an upload: who has it in hand, who waits for that, whether it is open.

    `sure` is its offset while bytes come that may have to go again.
    """

    is_held: bool = False
    cut: Callable[[], object] = _nothing
    waiting: Deferred[None] | None = None
    upload: Upload | None = None
    sure: int | None = None
    idle: IDelayedCall | None = None
    idle_since: float = 0.0


class Resumable:
    """All uploads of a daemon that can be resumed."""

    _log = Logger()

    def __init__(
        self, reactor: IReactorTime, exports: Exports, store: Callable[[], UploadsStore], disk: Worker
    ) -> None:
        """`store` is asked when there is something to do."""
        self._reactor = reactor
        self._disk = disk
        self._filing = Filing(exports, store)
        self._items: dict[str, _Item] = {}

    # -- what clients ask for

    async def create(self, client: Client, wish: Wish) -> UploadRow:
        """Begin an upload, durably; an empty one is committed at once.

        Where its owner has too many, the one that nothing came of for the longest time makes way.

        Raises as `Exports.check_upload` and `Exports.make_parents`, `FileNameError`, and
        `OverloadedError` where its owner has too many that are all being written.
        """
        held = frozenset(upload for upload, item in self._items.items() if item.is_held)
        row, oldest = await self._disk.run(self._filing.create, client.who, client.holder, wish, held)
        for one in oldest:
            await self.drop(client, one)
        return row

    async def standing(self, client: Client, upload: str) -> Standing:
        """How far it has come. Raises `FileNotFoundError`, also where it is somebody else's, and `Gone`.

        One that is whole but has not got its name, because the daemon was killed then, gets it now.
        """
        row = await self._row(client.who, upload)
        if (offset := self._offset(upload)) is not None:
            return Standing(row, offset)
        is_in_use = upload in self._items
        found = Standing(*await self._disk.run(self._filing.standing, client.who, row, is_in_use))
        if found.row.done or found.offset < row.size:
            return found
        return await self.append(client, upload, found.offset, None, _receive_nothing)

    async def list(self, who: Principal, directory: RelPath) -> list[Standing]:
        """The unfinished uploads of `who` to files in a directory or below it."""
        known = {one: offset for one in self._items if (offset := self._offset(one)) is not None}
        found = await self._disk.run(self._filing.unfinished, who, directory, known)
        return [Standing(*one) for one in found]

    async def append(
        self, client: Client, upload: str, offset: int, check: Check | None, receive: Receive
    ) -> Standing:
        """Append what `receive` hands over, from this offset; one that is whole then is committed.

        Whoever writes to it now, the same client as a rule, has its connection broken: that one is lost.
        With a `check` all of it counts or nothing; otherwise what came before an error stays.

        Raises as `standing`, `WrongOffset`, `BusyError` where somebody else writes the path or did not let go
        in time, what `check` and `receive` raise, and as `Upload.write` and `Upload.finish`.
        """
        await self._row(client.who, upload)
        item = await self._turn(upload, client.cut)
        try:
            if client.is_gone():
                raise PeerGone
            row = await self._row(client.who, upload)
            if row.done:
                if offset != row.size:
                    raise WrongOffset(row.size)
                return Standing(row, row.size)
            opened = await self._open(item, client, row)
            if offset != opened.offset:
                raise WrongOffset(opened.offset)
            return await self._append(item, self._filing.part(client.who, row, opened, check), receive)
        finally:
            self._release(upload, item)

    async def _append(self, item: _Item, part: Part, receive: Receive) -> Standing:
        problem: Exception | None = None
        if part.is_checked:
            item.sure = part.offset
        try:
            await receive(part.take, part.missing)
        except Exception as error:
            problem = error
        # What has come is settled, whoever comes now.
        item.cut = _nothing
        try:
            problem = await self._disk.run(part.settle, problem)
        except BaseException:
            await self._put_away(item)
            raise
        finally:
            item.sure = None
        if part.row.done:
            item.upload = None
        if problem is not None:
            raise problem
        return Standing(part.row, part.offset)

    async def terminate(self, client: Client, upload: str) -> None:
        """Forget an upload and what came of it; of one that is done the file stays.

        Raises as `standing`, and `BusyError` where somebody does not let go of it.
        """
        await self._row(client.who, upload)
        item = await self._turn(upload, _nothing)
        try:
            await self._forget(client.who, await self._row(client.who, upload), item)
        finally:
            self._release(upload, item)

    async def drop(self, client: Client, row: UploadRow) -> None:
        """Forget an upload that nobody is to go on with, also where no thread is to be had."""
        try:
            item = await self._turn(row.id, _nothing)
            try:
                await self._forget(client.who, row, item)
            finally:
                self._release(row.id, item)
        except BusyError:
            """Somebody found it in the list, and goes on with it."""
        except OSError:
            self._failed(Failure())

    async def _forget(self, who: Principal, row: UploadRow, item: _Item) -> None:
        try:
            await surely(self._disk, self._filing.forget, who, row, item.upload)
        finally:
            item.upload = None

    # -- the daemon's own

    def recover(self) -> Deferred[None]:
        """Look what became of those that a kill met when they were about to be done; forget old ones."""
        return self._disk.run(self._filing.recover, frozenset(self._items))

    async def stop(self) -> None:
        """Let go of all that are open, so that they can be continued after the next start."""
        ends = [Deferred.fromCoroutine(self._suspend(upload)) for upload in [*self._items]]
        await gatherResults([end.addErrback(self._failed) for end in ends])

    # -- whose turn it is

    async def _turn(self, upload: str, cut: Callable[[], object]) -> _Item:
        """Have an upload in hand until `_release`. Raises `BusyError` where that takes too long."""
        item = self._items.setdefault(upload, _Item())
        if item.is_held:
            await self._await(item)
        item.is_held, item.cut = True, cut
        if item.idle is not None:
            item.idle.cancel()
            item.idle = None
        return item

    async def _await(self, item: _Item) -> None:
        earlier, item.waiting = item.waiting, Deferred()
        waiting = item.waiting
        if earlier is not None:
            earlier.errback(BusyError())
        cut, item.cut = item.cut, _nothing
        cut()
        try:
            await waiting.addTimeout(PATIENCE, self._reactor)
        except TookTooLong:
            raise BusyError from None
        finally:
            if item.waiting is waiting:
                item.waiting = None

    def _release(self, upload: str, item: _Item) -> None:
        item.cut = _nothing
        waiting, item.waiting = item.waiting, None
        if waiting is not None:
            waiting.callback(None)
            return
        item.is_held = False
        if item.upload is None:
            del self._items[upload]
            return
        item.idle_since = self._reactor.seconds()
        item.idle = self._reactor.callLater(IDLE_TIME, self._look_away, upload, item)

    # -- what is open

    async def _row(self, who: Principal, upload: str) -> UploadRow:
        """Its row. Raises `FileNotFoundError`, also where it is somebody else's, and `Gone`."""
        return await self._disk.run(self._filing.row, who, upload, upload in self._items)

    def _offset(self, upload: str) -> int | None:
        """How far one has come that is open; None where it is not."""
        item = self._items.get(upload)
        if item is None or item.upload is None:
            return None
        return item.upload.offset if item.sure is None else item.sure

    async def _open(self, item: _Item, client: Client, row: UploadRow) -> Upload:
        if item.upload is None:
            await self._make_room()
            item.upload = await self._disk.run(
                self._filing.open, client.who, client.holder, row, client.is_gone
            )
        return item.upload

    async def _make_room(self) -> None:
        """Put one away where too many are open. Raises `OverloadedError` where all are being written."""
        opened = [(one.idle_since, upload) for upload, one in self._items.items() if one.upload is not None]
        if len(opened) < MAX_OPEN:
            return
        idle = sorted(one for one in opened if not self._items[one[1]].is_held)
        if not idle:
            raise OverloadedError
        await self._suspend(idle[0][1])

    def _look_away(self, upload: str, item: _Item) -> None:
        """Nothing came for a while."""
        item.idle = None
        Deferred.fromCoroutine(self._suspend(upload)).addErrback(self._failed)

    async def _suspend(self, upload: str) -> None:
        item = await self._turn(upload, _nothing)
        try:
            await self._put_away(item)
        finally:
            self._release(upload, item)

    async def _put_away(self, item: _Item) -> None:
        """Close what is open; what came of it is kept."""
        opened, item.upload = item.upload, None
        if opened is None:
            return
        try:
            await surely(self._disk, opened.suspend)
        except OSError:
            self._failed(Failure())

    def _failed(self, failure: Failure) -> None:
        self._log.failure("an upload could not be put away", failure)


async def _receive_nothing(take: Callable[[bytes], None], missing: int) -> None:
    """All of it is there."""
