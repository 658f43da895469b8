"""Listings as HTTP bodies: the export API's JSON, a directory's JSON, a directory's pages.

Plain functions for a pool: each reads a directory and encodes it in one go.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgspec

from fileexport.disk.jail import Entry
from fileexport.errors import BadRequestError, FileNameError
from fileexport.exports import Exports, Pattern
from fileexport.http_queries import flag
from fileexport.paths import RelPath, printable
from fileexport.tokens import Principal
from fileexport.web import directory, pages
from fileexport.web.directory import Row
from fileexport.web.names import visible
from fileexport.web.pages import Addresses

_SORTS = {
    # They come so.
    "name": None,
    "size": lambda entry: (entry.size, entry.name),
    "mtime": lambda entry: (entry.mtime_ns, entry.name),
}


def files_json(
    exports: Exports,
    who: Principal,
    where: RelPath,
    query: dict[str, str],
    prefix: str,
    names: frozenset[str],
) -> bytes:
    """The regular files of a directory as `/list` answers them. Raises `BadRequestError`, `OSError`.

    `prefix` and `names` are those of `pages.url_of`.
    """
    recursive, details = flag(query, "recursive"), flag(query, "details")
    key, descending = _order(query)
    pattern = Pattern(query.get("prefix", ""), query.get("suffix", ""))
    chosen = exports.files(who, where, pattern, recursive=recursive)
    if key is not None:
        chosen.sort(key=key)
    if descending:
        chosen.reverse()

    def url(name: str) -> str:
        return pages.url_of(where + RelPath.parse(name), prefix, names)

    return msgspec.json.encode([_listed(entry, url, details=details) for entry in chosen])


def _listed(entry: Entry, url: Callable[[str], str], *, details: bool) -> dict[str, Any]:
    name = printable(entry.name)
    found = _described(entry) if details else {"name": name, "size": entry.size}
    if details or name != entry.name:
        # What is not UTF-8 cannot be asked for by its name in JSON; what lies too deep has no address.
        with suppress(FileNameError):
            found["url"] = url(entry.name)
    return found


def directory_json(exports: Exports, who: Principal, path: RelPath) -> bytes:
    """All entries of a directory as `?json` answers them."""
    return msgspec.json.encode([_described(entry) for entry in exports.browse(who, path)])


def page_json(exports: Exports, who: Principal, path: RelPath, addresses: Addresses) -> bytes:
    """All entries of a directory as `?json=page` answers them: what its page shows, in the page's order."""
    links = directory.Links(path, addresses)
    return msgspec.json.encode(
        [
            {
                "name": directory.quoted(row.name),
                "label": visible(row.name),
                "href": links.row(row),
                "type": row.kind,
                "kind": directory.kind_of(row),
                "size": row.size,
                "mtime": row.mtime,
            }
            for row in directory.ordered(_rows(exports, who, path))
        ]
    )


def plain_page(exports: Exports, who: Principal, path: RelPath, addresses: Addresses) -> bytes:
    """A directory as an HTML page for programs."""
    return directory.listing_page(path, _rows(exports, who, path), addresses)


def full_page(
    exports: Exports,
    who: Principal,
    path: RelPath,
    addresses: Addresses,
    look: Callable[[RelPath, list[Row], Addresses], bytes],
) -> bytes:
    """A directory as an HTML page for people; `look` writes it."""
    return look(path, _rows(exports, who, path), addresses)


def _rows(exports: Exports, who: Principal, path: RelPath) -> list[Row]:
    return [
        Row(entry.name, entry.kind, entry.size, entry.mtime_ns / 1e9) for entry in exports.browse(who, path)
    ]


def _described(entry: Entry) -> dict[str, Any]:
    return {
        "name": printable(entry.name),
        "type": entry.kind,
        "size": entry.size,
        "mtime": entry.mtime_ns / 1e9,
    }


def _order(query: dict[str, str]) -> tuple[Any, bool]:
    sort, order = query.get("sort", "name"), query.get("order", "asc")
    if sort not in _SORTS:
        raise BadRequestError("sort is one of name, size, mtime")
    if order not in ("asc", "desc"):
        raise BadRequestError("order is asc or desc")
    return _SORTS[sort], order == "desc"
