"""The parameters of a query as values: paths, forms, what to delete."""

from __future__ import annotations

from fileexport.disk.archive import Form
from fileexport.errors import BadRequestError
from fileexport.exports import ANY, Pattern
from fileexport.paths import RelPath, printable


def required(query: dict[str, str], name: str) -> str:
    """The value of a parameter that must be there. Raises `BadRequestError`."""
    if name not in query:
        raise BadRequestError(f"the parameter {name} is missing")
    return query[name]


def directory_of(query: dict[str, str]) -> RelPath:
    """The directory that `dir` names. Raises `BadRequestError`, `FileNameError`."""
    return RelPath.parse(required(query, "dir"))


def form_of(query: dict[str, str]) -> Form | None:
    """The form that `compress` names; None without it. Raises `BadRequestError`."""
    if "compress" not in query:
        return None
    try:
        return Form(query["compress"])
    except ValueError:
        raise BadRequestError("compress is one of zip, gz, zst") from None


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
