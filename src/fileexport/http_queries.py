"""The parameters of a query as values: paths, forms, what to delete."""

from __future__ import annotations

from collections.abc import Sequence

from fileexport.compression import ArchiveForm
from fileexport.disk.archive import Form
from fileexport.disk.trees import TreeForm
from fileexport.disk.uploads_store import Conflict
from fileexport.errors import BadRequestError
from fileexport.exports import ANY, Pattern
from fileexport.paths import RelPath, printable
from fileexport.web.directory import View

#: What can be made, by the words for it: by a job, by `/tar`, and on the way of a file and of a tree.
JOB_FORMATS = tuple(form.value for form in ArchiveForm)
TAR_FORMATS = tuple(form.value for form in ArchiveForm if form.holds_members)
FILE_FORMATS = tuple(form.value for form in Form)
TREE_FORMATS = tuple(form.value for form in TreeForm)
#: What becomes of a file whose name is taken.
CONFLICTS = tuple(conflict.value for conflict in Conflict)
_TRUE, _FALSE = ("1", "true", "yes", ""), ("0", "false", "no")


def required(query: dict[str, str], name: str) -> str:
    """The value of a parameter that must be there. Raises `BadRequestError`."""
    if name not in query:
        raise BadRequestError(f"the parameter {name} is missing")
    return query[name]


def one_of(name: str, value: str, words: Sequence[str]) -> str:
    """The value of a parameter that takes some words only. Raises `BadRequestError`."""
    if value not in words:
        raise BadRequestError(f"{name} is one of {', '.join(words)}")
    return value


def number(query: dict[str, str], name: str, lowest: int, highest: int, default: int) -> int:
    """The number that a parameter gives. Raises `BadRequestError` for one that is out of its range."""
    if (text := query.get(name)) is None:
        return default
    if not (text.isascii() and text.isdecimal() and len(text) < 7 and lowest <= int(text) <= highest):
        raise BadRequestError(f"{name} is a number from {lowest} to {highest}")
    return int(text)


def flag(query: dict[str, str], name: str) -> bool:
    """Whether something is wanted: ``1``, or the bare name. Raises `BadRequestError`."""
    value = query.get(name, "0").lower()
    if value not in _TRUE + _FALSE:
        raise BadRequestError(f"{name} is 1 or 0")
    return value in _TRUE


def conflict_of(value: str) -> Conflict:
    """What the word for it in `conflict` means. Raises `BadRequestError`."""
    return Conflict(one_of("conflict", value, CONFLICTS))


def directory_of(query: dict[str, str]) -> RelPath:
    """The directory that `dir` names. Raises `BadRequestError`, `FileNameError`."""
    return RelPath.parse(required(query, "dir"))


def form_of(query: dict[str, str]) -> Form | None:
    """The form that `compress` names; None without it. Raises `BadRequestError`."""
    if "compress" not in query:
        return None
    return Form(one_of("compress", query["compress"], FILE_FORMATS))


def view_of(query: dict[str, str]) -> View:
    """What of a directory's page is asked for. Raises `BadRequestError`."""
    sort = one_of("sort", query.get("sort", "name"), ("name", "size", "mtime"))
    order = one_of("order", query.get("order", "asc"), ("asc", "desc"))
    return View(sort, order, query.get("filter", "").strip(), number(query, "page", 1, 999_999, 1))


def selection_of(query: dict[str, str]) -> Pattern | str:
    """What /delete is to remove: a pattern, or one name. Raises `BadRequestError`.

    A parameter that we do not know is refused: a misspelt suffix must not widen what is removed.
    """
    if unknown := set(query) - {"dir", "name", "prefix", "suffix"}:
        raise BadRequestError(f"delete knows no parameter {printable(min(unknown))}")
    chosen = {name: query[name] for name in ("name", "prefix", "suffix") if name in query}
    if not chosen or not all(chosen.values()):
        raise BadRequestError("delete needs name, or prefix and/or suffix, and none of them empty")
    if "name" in chosen:
        if len(chosen) > 1:
            raise BadRequestError("name stands alone: without prefix and suffix")
        return chosen["name"]
    stars = [value == "*" for value in chosen.values()]
    if any(stars) and not (all(stars) and len(stars) == 2):
        raise BadRequestError("every file is prefix=* and suffix=* together; one * alone is refused")
    return ANY if all(stars) else Pattern(**chosen)
