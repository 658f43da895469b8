"""What a browser gets of our own: directory pages, error pages, static files.

Everything here works without JavaScript, and for every name that a file system can hold: a name is a link
through its percent-encoded bytes, and text only after whatever could deceive a reader was made visible.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from hashlib import sha256
from http import HTTPStatus
from typing import TYPE_CHECKING, NamedTuple

from fileexport.paths import MAX_DEPTH, MAX_PATH, RelPath, quote_name
from fileexport.web.names import visible

if TYPE_CHECKING:
    from jinja2 import Environment

#: Reaches every exported entry, also one whose name is a route of the daemon's own.
FILES_ROUTE = "/-/files"
STATIC_ROUTE = "/-/static"

#: The security headers of our own pages (CSP level 3). The referrer stays with our own origin: with none at
#: all a browser would send `Origin: null` from our own forms, and a changing request would be refused.
PAGE_POLICY: tuple[tuple[bytes, bytes], ...] = (
    (
        b"Content-Security-Policy",
        b"default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; "
        b"frame-ancestors 'none'",
    ),
    (b"Referrer-Policy", b"same-origin"),
)


class Row(NamedTuple):
    """One entry of a directory: its name with surrogate escapes, bytes, seconds since 1970.

    `kind` is ``file``, ``directory``, ``link`` or ``other``; the name of a nested ``--dir`` holds slashes.
    """

    name: str
    kind: str
    size: int
    mtime: float


class _Entry(NamedTuple):
    """A row as the template writes it."""

    href: str
    label: str
    is_directory: bool
    size: str
    exact: str
    modified: str


def directory_page(
    where: RelPath,
    rows: Sequence[Row],
    *,
    prefix: str = "",
    own_names: frozenset[str] = frozenset(),
) -> bytes:
    """Write the page of a directory as UTF-8 HTML: directories first, then by name.

    `prefix` is what a reverse proxy puts before our paths, without a slash at its end. What lies at or below
    a name of `own_names` in the root (our own routes) is reached through `FILES_ROUTE`.
    """
    links = _Links(where, prefix, own_names)
    ordered = sorted(rows, key=lambda row: (row.kind != "directory", row.name))
    total = sum(row.size for row in rows if row.kind == "file")
    return _render(
        "directory.html",
        prefix,
        path=visible(str(where) + "/" if where else "/"),
        name=visible(where.name),
        parent=links.directory(where.parent) if where else "",
        crumbs=[
            (visible(name), links.directory(RelPath(where.parts[: depth + 1])))
            for depth, name in enumerate(where.parent)
        ],
        entries=[_entry(row, links) for row in ordered],
        count="1 entry" if len(rows) == 1 else f"{len(rows):,} entries",
        total=human_size(total),
        exact=_exact(total),
    )


def error_page(status: int, sentence: str, *, prefix: str = "") -> bytes:
    """Write the page of an HTTP error as UTF-8 HTML: the status, one sentence, a link to the root."""
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = "Error"
    return _render("error.html", prefix, status=status, phrase=phrase, sentence=visible(sentence))


def _render(template: str, prefix: str, **values: object) -> bytes:
    text = _templates().get_template(template).render(prefix=prefix, static=prefix + STATIC_ROUTE, **values)
    return text.encode("utf-8", "replace")


@functools.cache
def _templates() -> Environment:
    # Imported late: a daemon that serves no page never pays for it.
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("fileexport.web"),
        autoescape=True,
        auto_reload=False,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def url_of(path: RelPath, prefix: str = "", own_names: frozenset[str] = frozenset()) -> str:
    """The address of an exported entry on this server, without a slash after a directory's name.

    What lies at or below a name of `own_names` in the root goes through `FILES_ROUTE`.
    """
    own = bool(path) and path.parts[0] in own_names
    return f"{prefix}{FILES_ROUTE if own else ''}{path.url()}"


class _Links:
    """The links of one page: absolute, so that they do not depend on how the page was reached."""

    def __init__(self, where: RelPath, prefix: str, own_names: frozenset[str]) -> None:
        self._prefix = prefix
        self._own_names = own_names
        self._where = where
        self._base = self.directory(where)
        # What a name may be long before nobody could ask for its path; nothing, at the deepest level.
        room = MAX_PATH - len(os.fsencode(str(where)))
        self._room = room if len(where.parts) < MAX_DEPTH else 0

    def directory(self, path: RelPath) -> str:
        """The link to a directory; it ends with a slash."""
        return url_of(path, self._prefix, self._own_names) + ("/" if path else "")

    def row(self, row: Row) -> str:
        """The link to an entry; empty for what cannot be opened or lies deeper than a path may reach."""
        if row.kind == "other" or len(os.fsencode(row.name)) > self._room:
            return ""
        base = self._base
        if not self._where and row.name.partition("/")[0] in self._own_names:
            base = f"{self._prefix}{FILES_ROUTE}/"
        # Not through a RelPath for each: that alone would take longer than the rest of the page. A slash in
        # a name can only be the separator of a nested `--dir`.
        href = base + quote_name(row.name).replace("%2F", "/")
        return f"{href}/" if row.kind == "directory" else href


def _entry(row: Row, links: _Links) -> _Entry:
    is_file = row.kind == "file"
    return _Entry(
        links.row(row),
        visible(row.name),
        row.kind == "directory",
        human_size(row.size) if is_file else _INSTEAD_OF_SIZE.get(row.kind, "special"),
        _exact(row.size) if is_file else "",
        _minutes(row.mtime),
    )


_INSTEAD_OF_SIZE = {"directory": "–", "link": "link"}


def _minutes(mtime: float) -> str:
    """`mtime` as ISO 8601 in UTC to the minute; a dash outside the years 1 to 9999."""
    try:
        day, minute = divmod(int(mtime // 60), 24 * 60)
        return f"{_day(day)} {minute // 60:02}:{minute % 60:02}"
    except (OverflowError, ValueError):
        return "–"


@functools.lru_cache(maxsize=1024)
def _day(days: int) -> str:
    # Kept, because the entries of a large directory share few days.
    return date.fromordinal(_EPOCH + days).isoformat()


_EPOCH = date(1970, 1, 1).toordinal()


def human_size(size: int) -> str:
    """A number of bytes in the largest binary unit that keeps it at one or more, as in ``1.5 MiB``."""
    if size < 1024:
        return f"{size} B"
    value = float(size)
    for unit in ("KiB", "MiB", "GiB", "TiB", "PiB"):
        value /= 1024
        # 1023.95 would be written as 1024.0.
        if value < 1023.95:
            return f"{value:.1f} {unit}"
    return f"{value / 1024:.1f} EiB"


def _exact(size: int) -> str:
    return "1 byte" if size == 1 else f"{size:,} bytes"


class StaticFile(NamedTuple):
    """A file of our own pages, whole, with a strong ETag of its content."""

    content_type: bytes
    data: bytes
    etag: bytes


_STATIC_TYPES = {
    "style.css": b"text/css; charset=utf-8",
    "icon.svg": b"image/svg+xml",
    "favicon.ico": b"image/vnd.microsoft.icon",
}


@functools.cache
def _load_static(name: str) -> StaticFile:
    # Imported late, as Jinja2 is: a start does not wait for it.
    from importlib import resources

    data = (resources.files("fileexport.web") / "static" / name).read_bytes()
    return StaticFile(_STATIC_TYPES[name], data, b'"%s"' % sha256(data).hexdigest()[:32].encode("ascii"))


class _Static(Mapping[str, StaticFile]):
    """Our static files by name, each read from the package once, when it is first asked for."""

    def __getitem__(self, name: str) -> StaticFile:
        if name not in _STATIC_TYPES:
            raise KeyError(name)
        return _load_static(name)

    def __iter__(self) -> Iterator[str]:
        return iter(_STATIC_TYPES)

    def __len__(self) -> int:
        return len(_STATIC_TYPES)


STATIC: Mapping[str, StaticFile] = _Static()
