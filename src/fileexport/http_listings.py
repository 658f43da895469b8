"""Listings as HTTP bodies: the export API's JSON, a directory's JSON, a directory's page.

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
from fileexport.paths import RelPath, printable
from fileexport.tokens import Principal
from fileexport.web import pages

_TRUE, _FALSE = ("1", "true", "yes", ""), ("0", "false", "no")
_SORTS = {
    # They come so.
    "name": None,
    "size": lambda entry: (entry.size, entry.name),
    "mtime": lambda entry: (entry.mtime_ns, entry.name),
}


def files_json(
    exports: Exports,
    who: Principal,
    directory: RelPath,
    query: dict[str, str],
    prefix: str,
    names: frozenset[str],
) -> bytes:
    """The regular files of a directory as `/list` answers them. Raises `BadRequestError`, `OSError`.

    `prefix` and `names` are those of `pages.url_of`, as for all of these.
    """
    recursive, details = _flag(query, "recursive"), _flag(query, "details")
    key, descending = _order(query)
    pattern = Pattern(query.get("prefix", ""), query.get("suffix", ""))
    chosen = exports.files(who, directory, pattern, recursive=recursive)
    if key is not None:
        chosen.sort(key=key)
    if descending:
        chosen.reverse()

    def url(name: str) -> str:
        return pages.url_of(directory + RelPath.parse(name), prefix, names)

    return msgspec.json.encode([_listed(entry, url, details=details) for entry in chosen])


def _listed(entry: Entry, url: Callable[[str], str], *, details: bool) -> dict[str, Any]:
    name = printable(entry.name)
    found = _described(entry) if details else {"name": name, "size": entry.size}
    if details or name != entry.name:
        # What is not UTF-8 cannot be asked for by its name in JSON; what lies too deep has no address.
        with suppress(FileNameError):
            found["url"] = url(entry.name)
    return found


def directory_json(
    exports: Exports, who: Principal, path: RelPath, prefix: str, names: frozenset[str]
) -> bytes:
    """All entries of a directory as `?json` answers them."""
    return msgspec.json.encode([_described(entry) for entry in exports.browse(who, path)])


def directory_page(
    exports: Exports, who: Principal, path: RelPath, prefix: str, names: frozenset[str]
) -> bytes:
    """A directory as an HTML page."""
    rows = [
        pages.Row(entry.name, entry.kind, entry.size, entry.mtime_ns / 1e9)
        for entry in exports.browse(who, path)
    ]
    return pages.directory_page(path, rows, prefix=prefix, own_names=names)


def _described(entry: Entry) -> dict[str, Any]:
    return {
        "name": printable(entry.name),
        "type": entry.kind,
        "size": entry.size,
        "mtime": entry.mtime_ns / 1e9,
    }


def _flag(query: dict[str, str], name: str) -> bool:
    value = query.get(name, "0").lower()
    if value not in _TRUE + _FALSE:
        raise BadRequestError(f"{name} is 1 or 0")
    return value in _TRUE


def _order(query: dict[str, str]) -> tuple[Any, bool]:
    sort, order = query.get("sort", "name"), query.get("order", "asc")
    if sort not in _SORTS:
        raise BadRequestError("sort is one of name, size, mtime")
    if order not in ("asc", "desc"):
        raise BadRequestError("order is asc or desc")
    return _SORTS[sort], order == "desc"
