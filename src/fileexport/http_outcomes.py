"""What became of many things that one request asked for: as JSON, as a page, or as lines of text.

One that failed does not keep the others from being done, so that the answer has to name both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Any, NamedTuple, ParamSpec

import msgspec
from twisted.logger import Logger
from twisted.python.failure import Failure as Trace

from fileexport.errors import UnexpectedError, row_for, sentence_for
from fileexport.http_bodies import Bodies
from fileexport.paths import RelPath, printable
from fileexport.web import pages
from fileexport.web.failures import HttpError
from fileexport.web.names import visible
from fileexport.web.request import Header, Request

_JSON = b"application/json"
_TEXT = b"text/plain; charset=utf-8"
_HTML = b"text/html; charset=utf-8"
_FRESH: tuple[Header, ...] = ((b"Cache-Control", b"no-store"), (b"Vary", b"Accept"))

P = ParamSpec("P")

_log = Logger()


class Failed(NamedTuple):
    """One thing that could not be done: its name, and how the request named it where that is not the same."""

    name: str
    error: Exception
    entry: str | None = None

    @classmethod
    def of(cls, name: str, error: Exception, entry: str | None = None) -> Failed:
        """The failure; what is nobody's fault but ours is logged.

        Of the error only what it says is kept: its frames would hold the content that was in hand.
        """
        if not isinstance(error, HttpError) and row_for(error).kind is UnexpectedError:
            _log.failure("{name} failed", Trace(error), name=visible(printable(name)))
        error.__traceback__ = error.__cause__ = error.__context__ = None
        return cls(name, error, entry)

    @property
    def status(self) -> HTTPStatus:
        """The status that the error has alone."""
        return self.error.status if isinstance(self.error, HttpError) else row_for(self.error).http

    def as_json(self) -> dict[str, Any]:
        """The failure as JSON shows it."""
        shown = {"name": printable(self.name), "status": int(self.status), "error": sentence_for(self.error)}
        return shown if self.entry is None else shown | {"entry": printable(self.entry)}


class Outcome(NamedTuple):
    """What became of all.

    - `sentence`: what was done, as in ``moved 2 entries``; `status`: the answer's.
    - `back`: the directory that it was about.
    - `failed`: what could not be done; None where that is not said.
    - `facts`: members of the JSON beside `failed`; `done`: names for the page.
    """

    sentence: str
    status: HTTPStatus
    back: RelPath
    facts: Mapping[str, Any]
    failed: Sequence[Failed] | None = None
    done: Sequence[str] = ()
    headers: tuple[Header, ...] = ()


def counted(done: str, count: int, one: str, many: str) -> str:
    """A sentence such as ``moved 2 entries``."""
    return f"{done} {count:,} {one if count == 1 else many}"


class Outcomes:
    """Answers with outcomes, and with other pages that come after a form."""

    def __init__(self, bodies: Bodies, prefix: str, names: frozenset[str]) -> None:
        """`prefix` and `names` are those of `pages.url_of`."""
        self._bodies = bodies
        self._prefix = prefix
        self._addresses = pages.Addresses(prefix, names)

    def directory(self, path: RelPath) -> str:
        """The address of a directory."""
        return self._addresses.directory(path)

    def entry(self, path: RelPath) -> str:
        """The address of an entry."""
        return self._addresses.entry(path)

    async def answer(self, request: Request, outcome: Outcome) -> None:
        """Answer; a browser goes back to the directory when all was done, and reads a page else."""
        headers = (*_FRESH, *outcome.headers)
        if request.accepts(b"json"):
            kind, body = _JSON, await self._bodies.away(request, _json, outcome)
        elif request.accepts(b"text/html"):
            if not outcome.failed:
                return self.back(request, outcome.back)
            kind, body = _HTML, await self._bodies.away(request, self._page, outcome)
            headers = (*headers, *pages.PAGE_POLICY)
        else:
            kind, body = _TEXT, await self._bodies.away(request, _text, outcome)
        await self._bodies.whole(request, body, ((b"Content-Type", kind), *headers), status=outcome.status)

    def back(self, request: Request, path: RelPath) -> None:
        """Send a browser to a directory's page."""
        location = self.directory(path).encode("ascii")
        request.answer(HTTPStatus.SEE_OTHER, b"", _TEXT, ((b"Location", location), *_FRESH))

    async def page(
        self, request: Request, make: Callable[P, bytes], *args: P.args, **kwargs: P.kwargs
    ) -> None:
        """Send a page that `make` writes, in a thread."""
        await self._bodies.made(request, _HTML, (*_FRESH, *pages.PAGE_POLICY), make, *args, **kwargs)

    def render(self, template: str, path: RelPath, **values: object) -> bytes:
        """Write a page that is about a directory, with the links to what is above it."""
        crumbs = [
            (visible(name), self.directory(RelPath(path.parts[: depth + 1])))
            for depth, name in enumerate(path)
        ]
        return pages.render(template, self._prefix, crumbs=crumbs, back=self.directory(path), **values)

    def _page(self, outcome: Outcome) -> bytes:
        return self.render(
            "outcome.html",
            outcome.back,
            sentence=f"{outcome.sentence[:1].upper()}{outcome.sentence[1:]}.",
            done=[visible(name) for name in outcome.done],
            failed=[(visible(failed.name), sentence_for(failed.error)) for failed in outcome.failed or ()],
        )


def _json(outcome: Outcome) -> bytes:
    found = dict(outcome.facts)
    if outcome.failed is not None:
        found["failed"] = [failed.as_json() for failed in outcome.failed]
    if outcome.status >= HTTPStatus.BAD_REQUEST and outcome.failed:
        found["detail"] = sentence_for(outcome.failed[0].error)
    return msgspec.json.encode(found)


def _text(outcome: Outcome) -> bytes:
    lines = [outcome.sentence]
    for failed in outcome.failed or ():
        lines.append(f"ERROR - {visible(failed.name)}: {sentence_for(failed.error)}")
    return "\n".join(lines).encode("utf-8", "replace")
