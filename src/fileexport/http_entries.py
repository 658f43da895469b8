"""What is done with selected entries of a directory, and making one: move, remove, pack.

Forms and scripts ask for it: `/-/new/<dir>`, `/-/move/<dir>`, `/-/remove/<dir>`, `/-/pack/<dir>`. An entry is
named by its percent-encoded bytes, so that every name passes through a form.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from http import HTTPStatus
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from fileexport.disk.trees import TreeForm
from fileexport.errors import (
    BadRequestError,
    ConflictError,
    FileExportError,
    FileNameError,
    OverloadedError,
    PeerGone,
)
from fileexport.exports import Exports
from fileexport.http_bodies import Bodies
from fileexport.http_outcomes import Failed, Outcome, Outcomes, counted
from fileexport.http_queries import TREE_FORMATS, one_of
from fileexport.http_receiving import holder_of
from fileexport.paths import RelPath, printable, quote_name
from fileexport.pools import Worker
from fileexport.tokens import Principal, Right
from fileexport.web.failures import through_directories
from fileexport.web.forms import MAX_BODY, MAX_SELECTED, Form, form_of
from fileexport.web.names import visible
from fileexport.web.request import Request
from fileexport.web.routes import Answer, Route
from fileexport.wire import messages as m

#: Bytes of forms in memory, of all requests together: one more is asked to come back.
MAX_HELD = 32 << 20
#: Entries that the page names which asks before they are removed.
MAX_NAMED = 1000

_NOTES = {
    "directory": "with everything in it",
    "link": "the link, not what it leads to",
    "gone": "is not there any more",
}


#: Answers one route: the request, who asks, the directory, the form.
_Act = Callable[[Request, Principal, RelPath, Form], Awaitable[None]]


_TREE = "it is a directory: a slash behind its name removes it with all that is below it"


class _Chosen(NamedTuple):
    """An entry that was selected: as the form named it, its name, and its path or why it has none.

    `is_tree`: it was named as a directory, by a slash at its end.
    """

    entry: str
    name: str
    path: RelPath | None
    is_tree: bool = False
    error: Exception | None = None


class EntriesDoor:
    """Answers the routes that do something with the entries of a directory."""

    def __init__(self, exports: Exports, disk: Worker, bodies: Bodies, outcomes: Outcomes) -> None:
        self._exports = exports
        self._disk = disk
        self._bodies = bodies
        self._outcomes = outcomes
        self._held = 0

    def routes(self) -> tuple[Route[Answer], ...]:
        """The routes, with their rights."""
        return (
            self._route("/-/new/*", self._new, Right.WRITE),
            self._route("/-/move/*", self._move, Right.WRITE),
            self._route("/-/remove/*", self._remove, Right.DELETE),
            self._route("/-/pack/*", self._pack, Right.READ),
        )

    def _route(self, path: str, act: _Act, right: Right) -> Route[Answer]:
        answer = partial(self._answer, act)
        return Route(path, answer, {b"POST": right}, plain=True, body=(b"POST",))

    async def _answer(self, act: _Act, request: Request, who: Principal, below: bytes) -> None:
        where = RelPath.from_url(below)
        with self._memory() as take:
            body = await request.read_body(MAX_BODY, take)
            form = Form(())
            if body:
                form = await self._disk.run(form_of, request.fields(b"content-type"), body)
            await act(request, who, where, form)

    @contextmanager
    def _memory(self) -> Iterator[Callable[[int], None]]:
        """What counts the bytes of one form, and raises `OverloadedError` where others take all."""
        mine = 0

        def take(size: int) -> None:
            nonlocal mine
            if self._held + size > MAX_HELD:
                raise OverloadedError
            mine += size
            self._held += size

        try:
            yield take
        finally:
            self._held -= mine

    # -- each of them

    async def _new(self, request: Request, who: Principal, where: RelPath, form: Form) -> None:
        """Make a directory; `name` may be a path, whose directories are made as well."""
        path = where + _new_path(form)
        with through_directories():
            count = await self._disk.run(self._exports.make_directories, who, path)
        if not count and form.one("exist") != "ok":
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        url = self._outcomes.directory(path)
        outcome = Outcome(
            f"made {visible(str(path))}",
            HTTPStatus.CREATED if count else HTTPStatus.OK,
            where,
            {"path": printable(str(path)), "url": url},
            headers=((b"Location", url.encode("ascii")),),
        )
        await self._outcomes.answer(request, outcome)

    async def _move(self, request: Request, who: Principal, where: RelPath, form: Form) -> None:
        """Move entries to another directory, or give one another name."""
        chosen = _chosen(form, where)
        target, name = _aim(form, where, chosen)
        replace = _flag(form, "replace")

        def step(path: RelPath) -> m.AnyStep:
            return m.MoveStep(path, target / (name or path.name), replace)

        errors = await self._disk.run(self._carry_out, who, chosen, step, holder_of(request, who))
        await self._tell(request, where, "moved", chosen, errors)

    async def _remove(self, request: Request, who: Principal, where: RelPath, form: Form) -> None:
        """Remove entries; without ``confirm=1`` a page asks first.

        What is below a directory goes only where it was named as one: a file may have become one meanwhile.
        """
        chosen = _chosen(form, where)
        if not _flag(form, "confirm"):
            if request.accepts(b"json") or not request.accepts(b"text/html"):
                raise BadRequestError("this removes all that is named: add confirm=1 when that is meant")
            return await self._outcomes.page(request, self._ask, who, where, chosen)

        def check() -> None:
            if request.gone:
                raise PeerGone

        errors = await self._disk.run(self._remove_all, who, chosen, holder_of(request, who), check)
        await self._tell(request, where, "removed", chosen, errors)

    async def _pack(self, request: Request, who: Principal, where: RelPath, form: Form) -> None:
        """Send entries as one archive."""
        names = []
        for one in _chosen(form, where):
            if one.error is not None:
                raise one.error
            names.append(one.name)
        kind = TreeForm(one_of("format", form.one("format") or "zip", TREE_FORMATS))
        await self._bodies.archive(request, kind.content_type, self._exports.archive, who, where, kind, names)

    async def _tell(
        self,
        request: Request,
        where: RelPath,
        did: str,
        chosen: Sequence[_Chosen],
        errors: Sequence[Exception | None],
    ) -> None:
        failed = [
            Failed.of(one.name, error, one.entry)
            for one, error in zip(chosen, errors, strict=True)
            if error is not None
        ]
        count = len(chosen) - len(failed)
        status = failed[0].status if failed else HTTPStatus.OK
        sentence = counted(did, count, "entry", "entries")
        await self._outcomes.answer(request, Outcome(sentence, status, where, {did: count}, failed))

    # -- called in threads

    def _carry_out(
        self,
        who: Principal,
        chosen: Sequence[_Chosen],
        step: Callable[[RelPath], m.AnyStep],
        holder: str,
    ) -> list[Exception | None]:
        """Make one step of each entry; what became of each."""
        errors = [one.error for one in chosen]
        steps, numbers = [], []
        for number, one in enumerate(chosen):
            if one.path is None:
                continue
            try:
                steps.append(step(one.path))
                numbers.append(number)
            except FileNameError as error:
                errors[number] = error
        for number, outcome in zip(numbers, self._exports.carry_out(who, steps, holder=holder), strict=True):
            errors[number] = outcome
        return errors

    def _remove_all(
        self, who: Principal, chosen: Sequence[_Chosen], holder: str, check: Callable[[], object]
    ) -> list[Exception | None]:
        """Remove each entry: first together what is quick, then the directories that hold something."""
        errors = self._carry_out(who, chosen, m.RemoveStep, holder)
        for number, one in enumerate(chosen):
            if one.path is None or not isinstance(errors[number], IsADirectoryError):
                continue
            if not one.is_tree:
                errors[number] = ConflictError(_TREE)
                continue
            check()
            try:
                self._exports.remove_path(who, one.path, recursive=True, check=check)
                errors[number] = None
            except PeerGone:
                raise
            except (OSError, FileExportError) as error:
                errors[number] = error
        return errors

    def _ask(self, who: Principal, where: RelPath, chosen: Sequence[_Chosen]) -> bytes:
        """The page that names what would go."""
        kinds = [self._kind(who, one) for one in chosen]
        named = list(zip(chosen, kinds, strict=True))
        names = [(visible(one.name), _NOTES.get(kind, "")) for one, kind in named[:MAX_NAMED]]
        return self._outcomes.render(
            "confirm.html",
            where,
            question=f"Delete {counted('', len(chosen), 'entry', 'entries').strip()}?",
            action=f"/-/remove{where.url()}" + ("/" if where else ""),
            names=names,
            more=len(chosen) - len(names),
            entries=[quote_name(one.name) + ("/" if kind == "directory" else "") for one, kind in named],
        )

    def _kind(self, who: Principal, one: _Chosen) -> str:
        """What an entry is now; for who may not read, what the form says."""
        if one.path is None or not who.may(Right.READ):
            return "directory" if one.is_tree else ""
        try:
            return self._exports.stat(who, one.path).kind
        except (OSError, FileExportError):
            return "gone"


def _chosen(form: Form, where: RelPath) -> list[_Chosen]:
    """The entries that a form names, each once. Raises `BadRequestError` for none, and for too many."""
    entries = dict.fromkeys(form.all("entry"))
    if not entries:
        raise BadRequestError("nothing is selected: name an entry")
    if len(entries) > MAX_SELECTED:
        raise BadRequestError(f"more than {MAX_SELECTED} entries are selected")
    return [_choice(entry, where) for entry in entries]


def _choice(entry: str, where: RelPath) -> _Chosen:
    bare = entry.removesuffix("/")
    name, is_tree = _unquoted(bare), bare != entry
    try:
        return _Chosen(entry, name, where / name, is_tree)
    except FileNameError as error:
        return _Chosen(entry, name, None, is_tree, error)


def _aim(form: Form, where: RelPath, chosen: Sequence[_Chosen]) -> tuple[RelPath, str | None]:
    """The directory where entries are moved to, and the new name where there is one."""
    to, name = form.one("to"), form.one("name")
    if to is None and name is None:
        raise BadRequestError("say where to: a directory, or a new name")
    if to is not None and name is not None:
        raise BadRequestError("either a directory or a new name is meant: leave one of them empty")
    if to is not None:
        return _directory(to, where), None
    if len(chosen) > 1:
        raise BadRequestError("only one entry at a time gets a new name")
    return where, name


def _directory(text: str, where: RelPath) -> RelPath:
    """A directory by its percent-encoded path, absolute or from `where`; ``..`` is the one above."""
    names = [] if text.startswith("/") else list(where)
    for name in map(_unquoted, text.split("/")):
        if name == "..":
            if not names:
                raise BadRequestError("that directory would lie above the root")
            names.pop()
        elif name not in ("", "."):
            names.append(name)
    return RelPath(names)


def _new_path(form: Form) -> RelPath:
    """The new directory from where it is asked for; its name is text, not percent-encoded."""
    name = form.one("name")
    if name is None:
        raise BadRequestError("the new directory needs a name")
    return RelPath(name.removesuffix("/").split("/"))


def _flag(form: Form, name: str) -> bool:
    value = form.one(name)
    if value not in (None, "0", "1"):
        raise BadRequestError(f"{name} is 1 or 0")
    return value == "1"


def _unquoted(text: str) -> str:
    return os.fsdecode(unquote_to_bytes(os.fsencode(text)))
