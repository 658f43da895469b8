"""The OpenAPI document's paths that change the exported tree: files, forms, entries, resumable uploads."""

from __future__ import annotations

from collections.abc import Iterator

from fileexport.paths import MAX_NAME
from fileexport.web.openapi_parts import (
    FORM,
    HTML,
    JSON,
    NAME,
    OPEN,
    PATH,
    RESPONSES,
    STRING,
    SWITCH,
    TEXT,
    Json,
    answer,
    body,
    choice,
    errors,
    field,
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
from fileexport.web.tus import ALGORITHMS, EXTENSIONS

MULTIPART, BYTES = "multipart/form-data", "application/octet-stream"
PART = "application/offset+octet-stream"

#: What no system forbids in a name (the portable rule), and the name that is reserved.
_PORTABLE = rf"(?!\.{{1,2}}$|\.fileexport$)[^/<>:\\|?*\u0000-\u001f\u007f-\u009f]{{1,{MAX_NAME}}}"
_NEW_NAME = {"type": "string", "pattern": f"^{_PORTABLE}$", "maxLength": MAX_NAME}
_DIGESTS = [
    field("Content-Digest", "RFC 9530, sha-256 or sha-512: the body must be this."),
    field("Repr-Digest", "The same of the file."),
]
_MATCH = [
    field("If-Match", "Entity tags, one of which the file must have."),
    field("If-None-Match", "`*`: only where there is no file."),
    field("If-Unmodified-Since", "A date; the file must not be newer."),
]
_BACK = {"Location": header("The directory, for browsers.")}
_SENT = {"Location": header("The path of the new file.")}
_TAGS = {
    "ETag": header("Of the file.", required=False),
    "Repr-Digest": header("Where a digest was sent, or asked for.", required=False),
}

SCHEMAS: Json = {
    "Failure": record(
        {"name": STRING, "entry": STRING, "status": {"type": "integer"}, "error": STRING},
        optional=("entry",),
        description="What was not done; `entry` is how the request named it.",
    ),
    "Stored": record(
        {
            "files": listed(record({"path": STRING, "url": STRING, "size": {"type": "integer"}})),
            "failed": listed(ref("schemas", "Failure")),
            "detail": STRING,
        },
        optional=("detail",),
    ),
    "Upload": record(
        {
            "id": STRING,
            "url": STRING,
            "path": STRING,
            "size": {"type": "integer"},
            "offset": {"type": "integer"},
            "expires": {"type": "number"},
            "mtime": {"type": ["integer", "null"], "description": "Milliseconds since 1970."},
        }
    ),
}


# -- files at their own paths


def new_name(own: str) -> Json:
    """A name in the root that may be made; `own`, names that stand for something else, as a pattern."""
    return {**_NEW_NAME, "pattern": f"^(?!(?:{own})$){_PORTABLE}$"}


def put_and_post(name: str, where: list[Json], conflicts: tuple[str, ...]) -> Json:
    """The methods that change something at a path of the exported tree; `where` are its parameters."""
    into_root = not where
    stored = answer("Each file by itself.", {JSON: ref("schemas", "Stored"), TEXT: STRING})
    failed = answer("The first failure's status; the others are named.", stored["content"])
    file = {"type": "string", "contentMediaType": BYTES}
    form = form_of({"conflict": _conflict(conflicts), "file": listed(file)}, "file")
    about = "Stores the files of a form in a directory; a file's name may be a relative path."
    post = operation(
        f"{name}Form",
        "change",
        about,
        {201: stored, 303: answer("Back to the directory.", headers=_BACK), **errors(404, 415, 507)}
        | {status: failed for status in (409,)},
        where,
        requestBody=body(MULTIPART, form),
    )
    gone = {} if into_root else {201: answer("It is new.", {TEXT: STRING}, _SENT | _TAGS)}
    replaced = {} if into_root else {204: answer("It was replaced.", headers=_TAGS)}
    parents = query("parents", SWITCH, "Makes the directories above.", allowEmptyValue=True)
    refused = errors(404, 409, 412, 415, 507)
    put = operation(
        f"{name}Put",
        "change",
        "Stores a file." if not into_root else "The root is no file: 409.",
        gone | replaced | refused,
        (*where, parents, *_MATCH, *_DIGESTS),
        requestBody=body(BYTES, {}, required=False),
    )
    removed = {} if into_root else {204: answer("It is gone.")}
    about = "Removes a file, or a link itself." if not into_root else "The root is no file: 409."
    delete = operation(f"{name}Delete", "change", about, removed | errors(404, 409, 412), (*where, *_MATCH))
    return {"post": post, "put": put, "delete": delete}


def _conflict(words: tuple[str, ...]) -> Json:
    return choice(*words, default=words[0])


# -- entries of a directory


def entry_paths() -> Iterator[tuple[str, Json]]:
    """What is done with the selected entries of a directory, and making one."""
    entries = {
        "type": "array",
        "items": {"type": "string", "minLength": 1},
        "minItems": 1,
        "description": "Names, percent-encoded as in URLs.",
    }
    made = {201: answer("It is made.", {JSON: record({"path": STRING, "url": STRING}), TEXT: STRING}, _BACK)}
    there = {200: answer("It was there, and might be.", made[201]["content"])}
    aim = {"to": STRING, "name": _NEW_NAME, "replace": choice("1", "0")}
    archives: Json = dict.fromkeys(
        ("application/zip", "application/x-tar", "application/gzip", "application/zstd"), {}
    )
    sure = {"confirm": choice("1", "0")}
    asked = {HTML: STRING}
    form = {"format": choice("tar", "tar.gz", "tar.zst", "zip", default="zip")}
    for verb, about, answers, properties, required in (
        (
            "new",
            "Makes a directory, and those above it that are missing.",
            made | there,
            {"name": _NEW_NAME, "exist": {**STRING, "description": "`ok`: it may be there already."}},
            "name",
        ),
        (
            "move",
            "Moves entries to the directory `to` (percent-encoded), or gives one of them a `name`.",
            {200: _counted("moved", {})},
            {"entry": entries, **aim},
            "entry",
        ),
        (
            "remove",
            "Removes entries, with all that is below them; `confirm` says that this is meant.",
            {200: _counted("removed", asked)},
            {"entry": entries, **sure},
            "entry",
        ),
        (
            "pack",
            "Selected entries as one archive.",
            {200: answer("The archive.", archives)},
            {"entry": entries, **form},
            "entry",
        ),
    ):
        back = {} if verb == "pack" else {303: answer("Back to the directory.", headers=_BACK)}
        failures = errors(404, 409, 415, 507)
        if verb in ("move", "remove"):
            failures |= {status: _nothing_done(status) for status in (400, 403, 404, 409, 507)}
        for below, where in _below():
            yield (
                f"/-/{verb}/{below}",
                {
                    "post": operation(
                        f"{verb}{'In' if below else 'InRoot'}",
                        "change",
                        about,
                        answers | back | failures,
                        where,
                        requestBody=body(FORM, form_of(properties, required)),
                    )
                },
            )


def _below() -> tuple[tuple[str, list[Json]], ...]:
    where = segment(
        "path", NAME, "A directory in the root; deeper ones have a segment for each.", example="dumps"
    )
    return ("", []), ("{path}", [where])


def _counted(did: str, more: Json) -> Json:
    """How many entries, and which not."""
    found = record(
        {did: {"type": "integer"}, "failed": listed(ref("schemas", "Failure")), "detail": STRING},
        optional=("detail",),
    )
    return answer("How many, and what was not.", {JSON: found, TEXT: STRING, **more})


def _nothing_done(status: int) -> Json:
    """An error's answer, or that of entries of which nothing was done: the first one's status."""
    found = RESPONSES[str(status)]
    content = {**found["content"], JSON: {"schema": {"type": "object", "required": ["failed"]}}}
    return {**found, "content": content}


# -- resumable uploads

_VERSION = field("Tus-Resumable", "The protocol's version.", {"type": "string", "enum": ["1.0.0"]}) | {
    "required": True
}
_CHECKSUM = field(
    "Upload-Checksum",
    f"Of the body, in base64: one of {', '.join(name.decode() for name in ALGORITHMS)}.",
)
_TUS = {"Tus-Resumable": header("1.0.0.")}
_OFFSET = {"Upload-Offset": header("Bytes that are there, durable."), **_TUS}
_UNTIL = {"Upload-Expires": header("When it is forgotten.", required=False)}
_NUMBER = {"type": "integer", "minimum": 0}
_ONE = segment("id", {"type": "string", "pattern": "^[A-Za-z0-9_-]+$"}, "The upload's id.")


def upload_paths(conflicts: tuple[str, ...]) -> Iterator[tuple[str, Json]]:
    """tus 1.0."""
    told = _TUS | {
        "Tus-Version": header("Versions that are spoken."),
        "Tus-Extension": header(f"`{EXTENSIONS.decode()}`."),
        "Tus-Max-Size": header("Bytes."),
        "Tus-Checksum-Algorithm": header("Names."),
    }
    able = {204: answer("What can be done.", headers=told)}
    about = "What the server can do."
    within = query("dir", PATH, "Only those below this directory.", example="/")
    mine = {200: answer("Those that are not complete.", {JSON: listed(ref("schemas", "Upload"))}, _TUS)}
    listing = operation("listUploads", "uploads", "The caller's uploads.", mine | errors(404), (within,))
    options = operation("describeUploads", "uploads", about, able, security=OPEN)
    yield "/-/uploads", {**reading(listing), "options": options, "post": _creation(conflicts)}

    standing = _OFFSET | _UNTIL | {"Upload-Length": header("Bytes in all.")}
    look = operation(
        "headUpload",
        "uploads",
        "How far an upload is.",
        {200: answer("So far.", headers=standing), **_lost(), **errors(409, 423)},
        (_ONE, _VERSION),
    )
    look["responses"] = {
        status: found if "$ref" not in found else {"description": "No more is said."}
        for status, found in look["responses"].items()
    }
    cancel = operation(
        "cancelUpload",
        "uploads",
        "Forgets an upload.",
        {204: answer("It is forgotten.", headers=_TUS), **_lost(), **errors(423)},
        (_ONE, _VERSION),
    )
    any_one = segment("id", NAME, "Any.")
    options = operation("describeUpload", "uploads", about, able, (any_one,), security=OPEN)
    override = field("X-HTTP-Method-Override", "What is meant.", choice("PATCH", "HEAD", "DELETE")) | {
        "required": True
    }
    yield (
        "/-/uploads/{id}",
        {
            "options": options,
            "head": look,
            "patch": _append("appendToUpload", "The next part of a file; the last one gives it its name."),
            "delete": cancel,
            "post": _append("postUpload", "For those who can send nothing but POST.", override),
        },
    )


def _creation(conflicts: tuple[str, ...]) -> Json:
    metadata = field(
        "Upload-Metadata",
        "Keys and base64: `filename`, or `relativePath` with its directories; `mtime` in milliseconds.",
    )
    where = query("dir", PATH, "The directory.", example="dumps")
    conflict = query("conflict", _conflict(conflicts), "Where the name is taken.")
    length = field("Upload-Length", "Bytes of the file.", _NUMBER) | {"required": True}
    made = {"Location": header("The path of the upload."), **_TUS, **_UNTIL}
    made["Upload-Offset"] = header("Where a first part came with it.", required=False)
    answers = {
        201: answer("It may begin.", {TEXT: STRING}, made),
        **errors(404),
        **errors(409, 412, 415, 423, 507),
    }
    about = "Begins an upload; the body may be its first part."
    return operation(
        "createUpload",
        "uploads",
        about,
        answers,
        (where, conflict, _VERSION, length, metadata),
        requestBody=body(PART, {}, required=False),
    )


def _append(name: str, about: str, *more: Json) -> Json:
    offset = field("Upload-Offset", "Where the part begins.", _NUMBER) | {"required": True}
    answers = {
        204: answer("So far.", headers=_OFFSET | _UNTIL),
        **_lost(),
        **errors(409, 415, 423, 460, 507),
    }
    if more:
        answers[204] = answer("Done.", headers=_TUS)
        answers[200] = answer("For HEAD: so far.", headers=_OFFSET)
        answers |= errors(405)
    return operation(
        name,
        "uploads",
        about,
        answers,
        (_ONE, *more, _VERSION, offset, _CHECKSUM),
        requestBody=body(PART, {}),
    )


def _lost() -> dict[int, Json]:
    return errors(404, 410, 412)
