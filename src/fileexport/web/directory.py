"""The page of a directory: for people, with all that they may do there, and for programs, with links only.

Pure: rows in, HTML out. Natural order, filter and pages of entries are made here, because they are the same
without JavaScript as with it.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable, Sequence
from datetime import date
from functools import lru_cache
from typing import Any, NamedTuple
from urllib.parse import urlencode

from fileexport.paths import MAX_DEPTH, MAX_PATH, RelPath, quote_name
from fileexport.tokens import Right
from fileexport.web.media import media_type
from fileexport.web.names import visible
from fileexport.web.pages import Addresses, render

#: Entries of one page for people.
PAGE_LENGTH = 1000


class Row(NamedTuple):
    """One entry of a directory: its name with surrogate escapes, bytes, seconds since 1970.

    `kind` is ``file``, ``directory``, ``link`` or ``other``; the name of a nested ``--dir`` holds slashes.
    """

    name: str
    kind: str
    size: int
    mtime: float


class View(NamedTuple):
    """What of a directory is looked at: its order (``name``, ``size``, ``mtime``), a filter, a page."""

    sort: str = "name"
    order: str = "asc"
    filter: str = ""
    page: int = 1

    def query(self) -> str:
        """The query that asks for it, with its question mark; empty for what is looked at unasked."""
        asked = {
            name: value
            for name, value in self._asdict().items()
            if value != getattr(UNASKED, name) or (name == "order" and self.sort != "name")
        }
        return "?" + urlencode(asked, errors="surrogateescape") if asked else ""


UNASKED = View()


class Visitor(NamedTuple):
    """Whoever looks at a page: the most that they may do there, and what they are called.

    `name` is empty for whoever came without a token. `has_session`: by a cookie, which they can give back.
    """

    rights: Right
    name: str = ""
    has_session: bool = False


class Line(NamedTuple):
    """A row as a template writes it."""

    name: str
    label: str
    href: str
    type: str
    kind: str
    bytes: int
    mtime: float
    size: str
    exact: str
    modified: str
    moment: str


def listing_page(where: RelPath, rows: Sequence[Row], addresses: Addresses) -> bytes:
    """Write all of a directory as UTF-8 HTML for programs: folders first, in natural order, links only."""
    links = Links(where, addresses)
    return render(
        "listing.html",
        addresses.prefix,
        **_heading(where, addresses),
        **_summary(rows, len(rows), ""),
        rows=[_plain_line(row, links) for row in ordered(rows)],
    )


def _plain_line(row: Row, links: Links) -> tuple[str, str, str, str, str, str]:
    """Link, label, slash, size, exact size and time of an entry: what lets its template be fast."""
    slash = "/" if row.kind == "directory" else ""
    return links.row(row), visible(row.name), slash, *_size_of(row), _minutes(moment_of(row.mtime))


def directory_page(
    where: RelPath,
    rows: Sequence[Row],
    addresses: Addresses,
    *,
    view: View = UNASKED,
    visitor: Visitor | None = None,
    nonce: str,
    changeable: bool = True,
) -> bytes:
    """Write the page of a directory as UTF-8 HTML for people: what `view` asks for, a page of it at most.

    The forms are those of what the visitor may do; without a visitor, as for a share, it is only looked at.
    Not `changeable` is what lies above the exported directories. The script has the `nonce`.
    """
    links = Links(where, addresses)
    chosen = chosen_of(rows, view)
    pages = max(1, -(-len(chosen) // PAGE_LENGTH))
    view = view._replace(page=min(view.page, pages))
    here = addresses.directory(where)
    first = (view.page - 1) * PAGE_LENGTH
    return render(
        "directory.html",
        addresses.prefix,
        **_heading(where, addresses),
        **_around(where, addresses, visitor, changeable, here + view.query()),
        here=here,
        **_summary(rows, len(chosen), view.filter),
        total=len(rows),
        rows=[line_of(row, links) for row in chosen[first : first + PAGE_LENGTH]],
        sample=_SAMPLE,
        view=view,
        filter_label=visible(view.filter),
        columns={name: _column(name, view, here) for name in _COLUMNS},
        pages=pages,
        previous=here + view._replace(page=view.page - 1).query() if view.page > 1 else "",
        next=here + view._replace(page=view.page + 1).query() if view.page < pages else "",
        nonce=nonce,
    )


def _heading(where: RelPath, addresses: Addresses) -> dict[str, Any]:
    top, below = addresses.top, addresses.below(where)
    shown = RelPath((*top.parts[-1:], *below))
    above = [top + RelPath(below.parts[:depth]) for depth in range(1, len(below.parts))]
    return {
        "path": visible(str(shown) + "/" if shown else "/"),
        "name": visible(where.name),
        "home": addresses.directory(top),
        "parent": addresses.directory(where.parent) if below else "",
        "crumbs": [(visible(path.name), addresses.directory(path)) for path in above],
    }


def _around(
    where: RelPath, addresses: Addresses, visitor: Visitor | None, changeable: bool, address: str
) -> dict[str, Any]:
    """What the visitor may do, by the addresses of the forms; and who they are."""
    prefix, below = addresses.prefix, addresses.below(where)
    directory = below.url() + ("/" if below else "")
    rights = visitor.rights if visitor else Right.READ
    writes = visitor is not None and changeable and Right.WRITE in rights
    deletes = visitor is not None and changeable and Right.DELETE in rights
    selects = visitor is not None and changeable
    may = {"read": True, "write": writes, "delete": deletes}
    actions = {
        "pack": f"{prefix}/-/pack{directory}" if selects else "",
        "upload": addresses.directory(where) if writes else "",
        "new": f"{prefix}/-/new{directory}" if writes else "",
        "move": f"{prefix}/-/move{directory}" if writes else "",
        "remove": f"{prefix}/-/remove{directory}" if deletes else "",
        "shares": f"{prefix}/-/shares" if visitor and Right.WRITE in rights else "",
    }
    invited = visitor and not visitor.name and _EVERYTHING not in rights
    return {
        "directory": directory,
        "may": [word for word, holds in may.items() if holds],
        "actions": actions,
        "who": visible(visitor.name) if visitor else "",
        "has_session": visitor is not None and visitor.has_session,
        "sign_in": f"{prefix}/-/sign-in?{urlencode({'next': address})}" if invited else "",
    }


_EVERYTHING = Right.READ | Right.WRITE | Right.DELETE
#: By the name of each column: its class in the table, and the order that a first click asks for.
_COLUMNS = {"name": ("name", "asc"), "size": ("size", "desc"), "mtime": ("date", "desc")}


def _column(name: str, view: View, here: str) -> dict[str, str]:
    css, order = _COLUMNS[name]
    is_sorted = view.sort == name
    if is_sorted:
        order = "asc" if view.order == "desc" else "desc"
    return {
        "key": name,
        "css": css,
        "sorted": f"{view.order}ending" if is_sorted else "",
        "href": here + view._replace(sort=name, order=order, page=1).query(),
    }


def _summary(rows: Sequence[Row], found: int, text: str) -> dict[str, str]:
    """How much there is, and how many entries a filter has found of it."""
    count = "1 entry" if len(rows) == 1 else f"{len(rows):,} entries"
    size = sum(row.size for row in rows if row.kind == "file")
    summary = f"{found:,} of {count}" if text else f"{count}, {human_size(size)} in files"
    return {"summary": summary, "exact_total": _exact(size)}


# -- which rows, and in which order


def ordered(rows: Iterable[Row], sort: str = "name", order: str = "asc") -> list[Row]:
    """The rows in an order: folders first in each, then by `sort`, then in natural order.

    Folders have no size: ordered by it they stay in natural order. Rows that are alike stay as they came.
    """
    natural = sorted(rows, key=lambda row: natural_key(row.name))
    folders = [row for row in natural if row.kind == "directory"]
    others = [row for row in natural if row.kind != "directory"]
    descending = order == "desc"
    if sort == "size":
        others.sort(key=lambda row: row.size, reverse=descending)
    elif sort == "mtime":
        for group in (folders, others):
            group.sort(key=lambda row: row.mtime, reverse=descending)
    elif descending:
        folders.reverse()
        others.reverse()
    return folders + others


_DIGITS = re.compile("[0-9]+")


def natural_key(name: str) -> str:
    """What orders names as people do: numbers by their value, letters whatever their case.

    Names that are alike so, such as ``a1`` and ``A01``, have the same.
    """
    # One text for each name: to sort a million of them holds the interpreter for less than a second, where
    # lists of texts and numbers would hold it, and all other requests, for ten.
    return _DIGITS.sub(_by_value, folded(name))


def _by_value(digits: re.Match[str]) -> str:
    """A number as text that is ordered by its value, before all other text: how long it is, then itself."""
    number = digits[0].lstrip("0")
    return f"\0{chr(len(number))}{number}"


def folded(text: str) -> str:
    """`text` as a filter compares it: composed, whatever the case."""
    return text.lower() if text.isascii() else unicodedata.normalize("NFC", text).casefold()


def chosen_of(rows: Sequence[Row], view: View) -> list[Row]:
    """All rows that `view` asks for, on whatever page, in its order: those whose label has the filter."""
    wanted = folded(view.filter)
    if wanted:
        rows = [row for row in rows if wanted in folded(visible(row.name))]
    return ordered(rows, view.sort, view.order)


# -- a row as it is written


class Links:
    """The links from one directory to its entries."""

    def __init__(self, where: RelPath, addresses: Addresses) -> None:
        self._addresses = addresses
        self._is_root = where == addresses.top
        self._base = addresses.directory(where)
        # What a name may be long before nobody could ask for its path; nothing, at the deepest level.
        room = MAX_PATH - len(os.fsencode(str(where)))
        self._room = room if len(where.parts) < MAX_DEPTH else 0

    def row(self, row: Row) -> str:
        """The link to an entry; empty for what cannot be opened or lies deeper than a path may reach."""
        if row.kind == "other" or len(os.fsencode(row.name)) > self._room:
            return ""
        base = self._base
        if self._is_root:
            base = self._addresses.start(row.name.partition("/")[0]) + "/"
        # Not through a RelPath for each: that alone would take longer than the rest of the page. A slash in
        # a name can only be the separator of a nested `--dir`.
        href = base + quoted(row.name)
        return f"{href}/" if row.kind == "directory" else href


def quoted(name: str) -> str:
    """A row's name percent-encoded; a nested ``--dir`` keeps its slashes."""
    return quote_name(name).replace("%2F", "/")


def line_of(row: Row, links: Links) -> Line:
    """A row as a template writes it."""
    size, exact = _size_of(row)
    moment = moment_of(row.mtime)
    return Line(
        name=quoted(row.name),
        label=visible(row.name),
        href=links.row(row),
        type=row.kind,
        kind=kind_of(row),
        bytes=row.size,
        mtime=row.mtime,
        size=size,
        exact=exact,
        modified=_minutes(moment),
        moment=moment,
    )


_INSTEAD_OF_SIZE = {"directory": "–", "link": "link"}
_SAMPLE = Line("", "", "#", "file", "other", 0, 0.0, "", "", "–", "")


def kind_of(row: Row) -> str:
    """What is shown before a name: ``folder``, ``image``, ``text``, …; else ``other``."""
    if row.kind == "file":
        return _kind_of_type(media_type(row.name))
    return "folder" if row.kind == "directory" else row.kind


@lru_cache(maxsize=256)
def _kind_of_type(media: str) -> str:
    group, _, rest = media.partition("/")
    if media in ("text/plain", "application/json"):
        return "text"
    if group in ("image", "audio", "video"):
        return group
    if group == "text" or rest.endswith("xml"):
        return "document"
    return _KINDS.get(rest, "other")


_KINDS = {
    kind: name
    for name, kinds in {
        "pdf": "pdf",
        "archive": "gzip java-archive vnd.rar x-7z-compressed x-bzip2 x-tar x-xz zip zstd",
        "document": "epub+zip msword rtf vnd.ms-excel vnd.ms-powerpoint related "
        "vnd.oasis.opendocument.presentation vnd.oasis.opendocument.spreadsheet "
        "vnd.oasis.opendocument.text vnd.openxmlformats-officedocument.presentationml.presentation "
        "vnd.openxmlformats-officedocument.spreadsheetml.sheet "
        "vnd.openxmlformats-officedocument.wordprocessingml.document",
    }.items()
    for kind in kinds.split()
}


def moment_of(mtime: float) -> str:
    """`mtime` as ISO 8601 in UTC to the second; empty outside the years 1 to 9999."""
    try:
        day, second = divmod(int(mtime // 1), 24 * 60 * 60)
        return f"{_day(day)}T{second // 3600:02}:{second // 60 % 60:02}:{second % 60:02}Z"
    except (OverflowError, ValueError):
        return ""


@lru_cache(maxsize=1024)
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


def _size_of(row: Row) -> tuple[str, str]:
    """The size for people, and exactly; what is no file has another word for it, and nothing exact."""
    if row.kind != "file":
        return _INSTEAD_OF_SIZE.get(row.kind, "special"), ""
    return human_size(row.size), _exact(row.size)


def _exact(size: int) -> str:
    return "1 byte" if size == 1 else f"{size:,} bytes"


def _minutes(moment: str) -> str:
    return moment[:16].replace("T", " ") or "–"
