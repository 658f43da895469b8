"""Routes: a path, what answers it, and which right each of its methods needs.

The table is data, so that a test can walk it: a route without a declared right cannot be made.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Generic, TypeVar

from fileexport.tokens import Principal, Right
from fileexport.web.request import Header, Request

#: An unreserved character (RFC 3986, section 2.3) that is percent-encoded, or a ``%`` that encodes nothing.
_NEEDLESS = re.compile(
    rb"%(?:(2[DEde]|3[0-9]|4[1-9A-Fa-f]|5[0-9AFaf]|6[1-9A-Fa-f]|7[0-9AEae])|(?![0-9A-Fa-f]{2}))"
)

A = TypeVar("A")
#: What answers a route of ours: the request, who asks, and what of the path varies.
Answer = Callable[[Request, Principal, bytes], Awaitable[None]]

#: Names in the root that are our own paths: an exported entry of that name is reached by `/-/files/…`.
OWN_NAMES = frozenset({"-", "list", "get", "tar", "delete", "stop", "favicon.ico"})


def own_names(mounts: Iterable[str] = ()) -> frozenset[str]:
    """Those names, and the first of each path where an application's own handler is mounted."""
    return OWN_NAMES.union(path.split("/")[1] for path in mounts)


class Open(Enum):
    """The right of a route that is open to everybody, said aloud."""

    TO_ALL = "all"


@dataclass(frozen=True, slots=True)
class Route(Generic[A]):
    """`path` is exact, has one name that varies (``/a/{id}/b``), or with a closing ``*`` covers all below.

    `plain` routes answer errors as text; `local_only` ones answer only a process of this machine. The methods
    in `body` read the request's body, which is otherwise passed over. `headers` stand on every error.
    """

    path: str
    answer: A
    rights: Mapping[bytes, Right | Open]
    plain: bool = False
    local_only: bool = False
    body: tuple[bytes, ...] = ()
    headers: tuple[Header, ...] = ()

    @property
    def allow(self) -> bytes:
        """The value of an Allow header."""
        return b", ".join(self.rights)

    @property
    def acts(self) -> bool:
        """Whether even its GET changes something: such a route has no HEAD."""
        return b"HEAD" not in self.rights


def reading(right: Right | Open = Right.READ) -> dict[bytes, Right | Open]:
    """The rights of a route that is only read."""
    return {b"GET": right, b"HEAD": right}


def acting(right: Right, *methods: bytes) -> dict[bytes, Right | Open]:
    """The rights of a route that changes something, by GET too: HEAD is not among its methods."""
    return dict.fromkeys((b"GET", *methods), right)


class Routes(Generic[A]):
    """Finds a path's route: an exact one first, else that with the longest fixed part; `/*` must be one."""

    def __init__(self, routes: Sequence[Route[A]]) -> None:
        self._exact = {route.path: route for route in routes if not set("*{") & set(route.path)}
        others = [(*_pattern(route.path), route) for route in routes if route.path not in self._exact]
        self._others = sorted(others, key=lambda other: -len(other[0]))
        self.all = tuple(routes)

    def find(self, path: bytes) -> tuple[Route[A], bytes]:
        """The route of a raw path, and what of the path varies or lies below a covering route.

        However a path is spelled, its route is the same, and so are its rights: see `one_spelling`.
        """
        text = one_spelling(path).decode("latin-1")
        if (route := self._exact.get(text)) is not None:
            return route, b""
        for start, pattern, route in self._others:
            if text.startswith(start) and (match := pattern.fullmatch(text)) is not None:
                return route, match[1].encode("latin-1")
        raise AssertionError("/* covers every path")


def one_spelling(path: bytes) -> bytes:
    """A raw path without encoding where none is needed: the same path (RFC 3986, section 6.2.2.2).

    What is decoded from it later is what `path` says: ``%2561`` stays, and a ``%`` that encodes nothing is
    encoded itself, lest what follows makes it encode something.
    """
    return _NEEDLESS.sub(_plain, path) if b"%" in path else path


def _plain(match: re.Match[bytes]) -> bytes:
    return b"%25" if match[1] is None else bytes.fromhex(match[1].decode("ascii"))


def _pattern(path: str) -> tuple[str, re.Pattern[str]]:
    """The fixed beginning of a route's path, and a pattern whose group is what varies."""
    if path.endswith("*"):
        # What lies below keeps its leading slash.
        return path[:-1], re.compile(re.escape(path[:-2]) + "(/.*)", re.DOTALL)
    start, _, rest = path.partition("{")
    return start, re.compile(re.escape(start) + "([^/]+)" + re.escape(rest.partition("}")[2]), re.DOTALL)
