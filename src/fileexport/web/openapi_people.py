"""The OpenAPI document's paths for people: signing in and out, links that are shared."""

from __future__ import annotations

from collections.abc import Iterator

from fileexport.web.openapi_parts import (
    FORM,
    HTML,
    JSON,
    OPEN,
    PATH,
    STRING,
    TEXT,
    Json,
    answer,
    body,
    choice,
    errors,
    form_of,
    header,
    listed,
    operation,
    query,
    reading,
    record,
    ref,
    segment,
)

_NEXT = {"type": "string", "description": "A path of this daemon's, to go on with."}
_THERE = {"Location": header("Where to go on.")}
_COOKIE = {"Set-Cookie": header("The session.", required=False)}
_PAGE = {HTML: STRING}
_ID = segment("id", {"type": "string", "pattern": "^[A-Za-z0-9_-]+$"}, "The link's id.")
_KEY = segment("key", {"type": "string", "pattern": "^[A-Za-z0-9_-]{20,80}$"}, "What the link ends with.")
_LISTING = "The caller's links; an admin's are all. This takes the rights to read and to write: a link reads."
_SECONDS = {"type": "integer", "minimum": 60, "maximum": 31_536_000, "default": 604_800}

SCHEMAS: Json = {
    "Share": record(
        {
            "id": STRING,
            "path": {"type": "string", "description": "Percent-encoded."},
            "type": choice("file", "directory"),
            "url": {"type": "string", "description": "The link, from the root of the site."},
            "created": {"type": "number"},
            "expires": {"type": "number"},
            "owner": STRING,
        },
        description="Whoever has the link may read what it leads to.",
    ),
    "NewShare": record({"path": PATH, "seconds": _SECONDS}, optional=("seconds",)),
}


def session_paths() -> Iterator[tuple[str, Json]]:
    """A token, once; a cookie from then on."""
    goal = query("next", _NEXT, "Where to go on.")
    page = {200: answer("The form.", _PAGE)}
    show = operation("signInPage", "people", "The page that asks for a token.", page, (goal,), security=OPEN)
    go_on = {303: answer("Signed in.", headers=_THERE | _COOKIE), **errors(415)}
    form = form_of({"token": STRING, "next": _NEXT})
    enter = operation(
        "signIn",
        "people",
        "Takes a token, and gives a session; a wrong one is answered after a second.",
        go_on,
        security=OPEN,
        requestBody=body(FORM, form),
    )
    yield "/-/sign-in", {**reading(show), "post": enter}
    leave = operation(
        "signOut",
        "people",
        "Ends the session.",
        {303: answer("Signed out.", headers=_THERE | _COOKIE), **errors(415)},
        security=OPEN,
        requestBody=body(FORM, form_of({"next": _NEXT}), required=False),
    )
    yield "/-/sign-out", {"post": leave}


def share_paths() -> Iterator[tuple[str, Json]]:
    """Links: for those who make them, and for those who have one."""
    made = answer("The link.", {JSON: ref("schemas", "Share"), TEXT: STRING})
    seen = answer("Those that are good.", {JSON: listed(ref("schemas", "Share")), HTML: STRING})
    listing = operation("listShares", "people", _LISTING, {200: seen})
    wish = form_of({"path": PATH, "seconds": _SECONDS}, "path")
    back = {303: answer("Back to the links.", headers=_THERE)}
    new = {
        "required": True,
        "content": {
            JSON: {"schema": ref("schemas", "NewShare"), "example": {"path": "/dumps"}},
            FORM: {"schema": wish},
        },
    }
    make = operation(
        "share",
        "people",
        "Makes a link that can read a file, or a directory with all below it, for a while. "
        "This takes the rights to read and to write.",
        {201: made, **back, **errors(404, 409, 415)},
        requestBody=new,
    )
    yield "/-/shares", {**reading(listing), "post": make}
    gone = {204: answer("The link leads nowhere now."), **errors(404)}
    about = "Takes a link back."
    yield "/-/shares/{id}", {"delete": operation("revoke", "people", about, gone, (_ID,))}
    form = operation("revokeByForm", "people", about, gone | back, (_ID,))
    yield "/-/shares/{id}/revoke", {"post": form}

    about = "What the link leads to: a file, or a directory as `browse` shows one."
    held = {
        200: answer("A page, a file, or what was asked for.", {"*/*": {}}),
        206: answer("Parts of a file.", {"*/*": {}}),
        301: answer("A directory's path ends with a slash.", {TEXT: {}}, _THERE),
        304: answer("The copy that the client has is still good."),
        **errors(404, 412, 416),
    }
    keep = query("download", STRING, "A file for keeping.", allowEmptyValue=True)
    yield "/-/share/{key}", reading(operation("follow", "people", about, held, (_KEY, keep), security=OPEN))
