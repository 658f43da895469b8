"""What remote paths are called, and which server they are of: URLs, and the pure part of `RemotePath`."""

from __future__ import annotations

import functools
import os
import re
import weakref
from collections.abc import Iterable
from pathlib import PurePath, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

from fileexport.client.environment import PORT, client_of_environment
from fileexport.paths import RelPath, quote_name

if TYPE_CHECKING:
    from typing import Self

    from fileexport.client.blocking import Client

SCHEME = "fileexport://"
_AUTHORITY = re.compile(r"(?:\[([^\[\]@]+)\]|([^\[\]@:?#\\\s]*))(?::([0-9]{0,5}))?")


class Place(NamedTuple):
    """A remote path, and the server that its URL names; None for what it leaves to others."""

    hostname: str | None
    port: int | None
    path: str


def is_url(text: str) -> bool:
    """Whether this is a URL of ours, not a path."""
    return text[: len(SCHEME)].lower() == SCHEME


def check_absolute(text: str) -> None:
    """Raise ValueError for a relative path; it shows none that may be a URL, in which a token may stand."""
    if not text.startswith("/"):
        shown = "it" if ":" in text else repr(text)
        raise ValueError(f"a remote path is absolute: {shown} does not begin with a slash")


def read_place(text: str) -> Place:
    """Read an absolute remote path, or ``fileexport://host:port/path``, percent-encoded.

    Of the URL host and port may be left out; ``?`` and ``#`` have no meaning in its path. Raises ValueError
    for a relative path and for a URL that is none, or names a user; `FileNameError` for its names that
    cannot be one. The names of a plain path are not looked at.
    """
    if not is_url(text):
        check_absolute(text)
        return Place(None, None, text)
    authority, _, path = text[len(SCHEME) :].partition("/")
    if "@" in authority:
        raise ValueError("a URL names no user and holds no token: the environment or a client does")
    found = _AUTHORITY.fullmatch(authority)
    port = int(found[3]) if found is not None and found[3] else None
    if found is None or not (port is None or 1 <= port <= 65535):
        # It is not shown: what stands there instead may be a token.
        raise ValueError(f"this URL names no server: it is written {SCHEME}host:port/path")
    return Place(found[1] or found[2] or None, port, str(RelPath.from_url(os.fsencode("/" + path))))


def place_of(path: str | os.PathLike[str]) -> Place:
    """What `open` was given, read by `read_place`. Raises TypeError for what is no path of text as well."""
    text: object = os.fspath(path)
    if not isinstance(text, str):
        raise TypeError(f"a remote path is a str, not {type(text).__name__}")
    return read_place(text)


def url_of(hostname: str, port: int, names: Iterable[str]) -> str:
    """The URL of a path with these names; what `read_place` reads back."""
    host = f"[{hostname}]" if ":" in hostname else hostname
    return f"{SCHEME}{host}:{port}/" + "/".join(quote_name(name) for name in names)


class Home:
    """The server of some paths, and a client for it: one that was given, or made at first use.

    `named` is what a URL says of host and port. Who makes paths from paths hands it on, so that they share
    the client; one that was made here is closed when nobody has it any more.
    """

    def __init__(self, hostname: str | None, port: int | None, client: Client | None = None) -> None:
        self.named = hostname, port
        self.is_given = client is not None
        if client is not None:
            self.client = client

    @functools.cached_property
    def client(self) -> Client:
        """Raises ValueError where the environment names no server."""
        made = client_of_environment(*self.named)
        weakref.finalize(made, made._pool.close)
        return made

    @property
    def address(self) -> tuple[str, int]:
        """Host and port; raises as `client`."""
        server = self.client._pool.server
        return server.hostname.lower(), server.port

    def is_same(self, other: Home) -> bool:
        """Whether both are one server, by its address."""
        if self is other or (not self.is_given and not other.is_given and self.named == other.named):
            return True
        try:
            return self.address == other.address
        except ValueError:
            return False


@functools.total_ordering
class RemoteNames:
    """A remote path as far as nobody has to be asked: what pathlib calls a pure path."""

    __slots__ = ("__weakref__", "_home", "_pure")

    _pure: PurePosixPath
    _home: Home

    def __init__(self, path: str | os.PathLike[str] | RemoteNames, *, client: Client | None = None) -> None:
        if isinstance(path, RemoteNames):
            home, text, (hostname, port) = path._home, str(path), (None, None)
            if client is not None:
                hostname, port = home.address
        else:
            hostname, port, text = read_place(os.fspath(path))
            home = Home(hostname, port)
        if client is not None:
            from fileexport.client.remote.files import check_same_server

            check_same_server(client, hostname, port)
            home = Home(None, None, client)
        self._home = home
        self._pure = _rooted(PurePosixPath(text))

    def _with(self, pure: PurePosixPath) -> Self:
        """Another path of the same server."""
        new = object.__new__(type(self))
        new._home = self._home
        new._pure = _rooted(pure)
        return new

    @property
    def client(self) -> Client:
        """The client that this path uses. Raises ValueError where the environment names no server."""
        return self._home.client

    def client_for(self, given: Client | None) -> Client:
        """The client that opens it: the given one, if it is of the same server, else its own."""
        return self.client if given is None else type(self)(self, client=given).client

    # How it is written, compared and handed on.

    def __str__(self) -> str:
        return str(self._pure)

    def as_posix(self) -> str:
        """The path as text, as `str` gives it."""
        return str(self._pure)

    def as_uri(self) -> str:
        """The URL, with the server; raises as `client`."""
        return url_of(*self._home.address, self._pure.parts[1:])

    def __repr__(self) -> str:
        hostname, port = self._home.address if self._home.is_given else self._home.named
        named = str(self) if hostname is None else url_of(hostname, port or PORT, self._pure.parts[1:])
        return f"{type(self).__name__}({named!r})"

    def __hash__(self) -> int:
        return hash(self._pure)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, RemoteNames):
            return NotImplemented
        return self._pure == other._pure and self._home.is_same(other._home)

    def __lt__(self, other: RemoteNames) -> bool:
        if not isinstance(other, RemoteNames):
            return NotImplemented
        return self._pure < other._pure

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __reduce__(self) -> tuple[object, ...]:
        if self._home.is_given:
            raise TypeError("a path of a client cannot be pickled: pickle its URL, and make it anew there")
        return _unpickled, (type(self), *self._home.named, str(self))

    # The names.

    @property
    def parts(self) -> tuple[str, ...]:
        """The root and the names."""
        return self._pure.parts

    @property
    def drive(self) -> str:
        """Empty."""
        return ""

    @property
    def root(self) -> str:
        """A slash."""
        return self._pure.root

    @property
    def anchor(self) -> str:
        """A slash."""
        return self._pure.anchor

    @property
    def name(self) -> str:
        """The last name; empty for the root."""
        return self._pure.name

    @property
    def stem(self) -> str:
        """The last name without its suffix."""
        return self._pure.stem

    @property
    def suffix(self) -> str:
        """The last suffix of the last name, with its dot."""
        return self._pure.suffix

    @property
    def suffixes(self) -> list[str]:
        """All suffixes of the last name."""
        return self._pure.suffixes

    @property
    def parent(self) -> Self:
        """The directory that it lies in; the root's is the root."""
        return self._with(self._pure.parent)

    @property
    def parents(self) -> tuple[Self, ...]:
        """All directories above it, the nearest first."""
        return tuple(self._with(pure) for pure in self._pure.parents)

    def __truediv__(self, other: str | PurePath | RemoteNames) -> Self:
        if not isinstance(other, str | PurePath | RemoteNames):
            return NotImplemented
        return self.joinpath(other)

    def joinpath(self, *others: str | PurePath | RemoteNames) -> Self:
        """This path and others behind it; an absolute one takes its place, as in pathlib.

        Raises ValueError for a path of another server.
        """
        pure = self._pure
        for other in others:
            pure /= self._of_here(other)
        return self._with(pure)

    def with_name(self, name: str) -> Self:
        """The same with another last name; raises as pathlib does, and so do the next two."""
        return self._with(self._pure.with_name(name))

    def with_stem(self, stem: str) -> Self:
        """The same with another stem."""
        return self._with(self._pure.with_stem(stem))

    def with_suffix(self, suffix: str) -> Self:
        """The same with another suffix, or none."""
        return self._with(self._pure.with_suffix(suffix))

    def relative_to(self, other: str | PurePath | RemoteNames) -> PurePosixPath:
        """This path as seen from another one: not a remote path, as it is relative. Raises ValueError."""
        return self._pure.relative_to(self._of_here(other))

    def is_relative_to(self, other: str | PurePath | RemoteNames) -> bool:
        """Whether it is another path, or below it, on the same server."""
        if isinstance(other, RemoteNames) and not self._home.is_same(other._home):
            return False
        return self._pure.is_relative_to(self._of_here(other))

    def match(self, pattern: str) -> bool:
        """Whether it matches a pattern, from its end as far as that is relative."""
        return self._pure.match(pattern)

    def is_absolute(self) -> bool:
        """Always."""
        return True

    def absolute(self) -> Self:
        """The path itself."""
        return self

    def _of_here(self, other: str | PurePath | RemoteNames) -> PurePosixPath:
        """Another path's names; raises ValueError for one of another server."""
        if not isinstance(other, RemoteNames):
            return PurePosixPath(other)
        if not self._home.is_same(other._home):
            raise ValueError(f"{other!r} is a path of another server than {self!r}")
        return other._pure


def _rooted(pure: PurePosixPath) -> PurePosixPath:
    """Two slashes in front, which have a meaning of their own in pathlib, have none here."""
    return pure if pure.root == "/" else PurePosixPath("/" + str(pure).lstrip("/"))


def _unpickled(kind: type[RemoteNames], hostname: str | None, port: int | None, text: str) -> RemoteNames:
    new = object.__new__(kind)
    new._home = Home(hostname, port)
    new._pure = PurePosixPath(text)
    return new
