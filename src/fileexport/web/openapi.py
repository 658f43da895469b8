"""The OpenAPI 3.1 document of the HTTP side: every path, method, parameter and answer.

`document` builds it from the tables below and in `openapi_parts`; a test holds it to the door's routes.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import msgspec

from fileexport.paths import MAX_NAME, MAX_PATH
from fileexport.web import openapi_changes as changes
from fileexport.web import openapi_parts as parts
from fileexport.web import openapi_people as people
from fileexport.web.openapi_parts import (
    BEARER,
    EVENTS,
    HTML,
    JSON,
    NAME,
    ONE_NAME,
    OPEN,
    PATH,
    STRING,
    SWITCH,
    TEXT,
    Answers,
    Json,
    acting,
    answer,
    choice,
    errors,
    field,
    header,
    listed,
    operation,
    query,
    reading,
    ref,
    segment,
)
from fileexport.web.routes import OWN_NAMES

_ABOUT = """\
One directory of files over HTTP: list, get, compress, delete.

All parameters stand in the query, once each. Errors are `application/problem+json` where `Accept` names JSON,
a page where it names HTML, otherwise one line of text or the page. A method that a path does not have is
answered with 405 and `Allow`. Whether a caller without a token may do something is the daemon's configuration
(`--anonymous`): every operation that needs a right therefore has "no security" among its alternatives. A
request that changes something is refused when another site's page makes it.

`dir` and names are counted in bytes of UTF-8: a name has 255 at most, a path 4096 and 64 names."""


class Formats(NamedTuple):
    """What can be made: by a job, by `/tar`, and on the way of a file and of a tree.

    `conflict`: what becomes of a file whose name is taken, by the words for it; the first is the default.
    """

    job: tuple[str, ...]
    tar: tuple[str, ...]
    file: tuple[str, ...]
    tree: tuple[str, ...]
    conflict: tuple[str, ...]


_ABOUT_DIR = "A directory below the root; `/`, `.` or nothing is the root."
#: With a name behind it, it is a path still.
_DIRECTORY = {**PATH, "maxLength": MAX_PATH - MAX_NAME - 1}
_DIR = query("dir", _DIRECTORY, _ABOUT_DIR, required=True, example="dumps")
_FILE = query("name", NAME, "A file in it.", required=True, example="notes.txt")
_TARGET = {"type": "string", "pattern": r"^/(?!/)[^\u0000-\u001f\u007f]*$", "maxLength": 2048}
_CONDITIONS = [
    field("Range", "Part of the file (RFC 9110, section 14.2); one that cannot be read is ignored."),
    field("If-Range", "The range only if the file is still this one."),
    field("If-Match", "Entity tags, one of which the file must have."),
    field("If-None-Match", "Entity tags, none of which the file may have."),
    field("If-Modified-Since", "A date; the file must be newer."),
    field("If-Unmodified-Since", "A date; the file must not be newer."),
]
_ENTITY = {
    "ETag": header("Changes with the file.", required=False),
    "Last-Modified": header("When the file was changed.", required=False),
    "Accept-Ranges": header("`bytes`, or `none` for what is made while it is sent.", required=False),
    "Content-Disposition": header("The name, made safe for saving.", required=False),
}
_LOCATION = {"Location": header("The path of the job.")}
_ARCHIVES = ("application/x-tar", "application/gzip", "application/zstd", "application/zip")
_JOB = {JSON: ref("schemas", "Job")}
#: What can be asked about a job that has just been made.
_LINKS = {
    name: {"operationId": name, "parameters": {"id": "$response.body#/id"}}
    for name in ("getJob", "cancelJob", "redeliver")
}


def _file_answers(kind: str = "*/*") -> Answers:
    """What is answered where a file is asked for, with its conditions and ranges."""
    return {
        200: answer("The whole.", {kind: {}}, _ENTITY),
        206: answer(
            "The ranges.", {"*/*": {}}, {"Content-Range": header("Of a single one.", required=False)}
        ),
        304: answer("The copy that the client has is still good."),
        **errors(404, 412, 416),
    }


# -- the paths


def _export_paths(formats: Formats) -> Iterator[tuple[str, Json]]:
    yield "/list", reading(_list())

    compress = query("compress", choice(*formats.file), "Compressed on the way; no ranges then.")
    parameters = (_DIR, _FILE, compress, *_CONDITIONS)
    yield "/get", reading(operation("get", "export", "A file for keeping.", _file_answers(), parameters))

    yield "/tar", {"get": _tar(formats)}
    yield "/delete", acting(("get", "post", "delete"), _delete())

    stopping = {200: answer("The daemon ends.", {TEXT: {"type": "string", "const": "stopping"}})}
    about = "Ends the daemon; for processes of its own machine only."
    yield "/stop", acting(("get", "post"), operation("stop", "daemon", about, stopping))


def _list() -> Json:
    parameters = (
        _DIR,
        query("prefix", STRING, "Only names that begin so."),
        query("suffix", STRING, "Only names that end so."),
        query("sort", choice("name", "size", "mtime", default="name"), "By what."),
        query("order", choice("asc", "desc", default="asc"), "Which way."),
        query("details", SWITCH, "Adds `type`, `mtime` and `url`.", allowEmptyValue=True),
        query("recursive", SWITCH, "The files of directories below as well.", allowEmptyValue=True),
    )
    files = answer("The regular files.", {JSON: listed(ref("schemas", "File"))})
    about = "The files of a directory."
    return operation("list", "export", about, {200: files, **errors(404)}, parameters)


def _tar(formats: Formats) -> Json:
    parameters = (
        _DIR,
        query("name", NAME, "A file or directory in it.", required=True, example="notes.txt"),
        query("host", {"type": "string", "minLength": 1}, "Whom to call back.", required=True),
        query("port", {"type": "integer", "minimum": 1, "maximum": 65535}, "On which port.", required=True),
        query("path", _TARGET, "With which path and query.", required=True, example="/ping?id=A1B2C3"),
        query("format", choice(*formats.tar, default="tar.gz"), "As what."),
    )
    working = answer("The job is durable.", {TEXT: {"type": "string", "const": "working ..."}}, _LOCATION)
    answers = {200: working, **errors(404, 409, 429, 507)}
    about = "Compresses beside the source, then calls back by GET."
    return operation("tar", "export", about, answers, parameters, security=BEARER)


def _delete() -> Json:
    chosen = {"type": "string", "minLength": 1}
    parameters = (
        _DIR,
        query("name", NAME, "This file; not with `prefix` or `suffix`.", example="old.txt"),
        query("prefix", chosen, "Files whose names begin so; `*` for both means every file."),
        query("suffix", chosen, "Files whose names end so; one of the three must be there."),
    )
    deleted = answer("How many.", {TEXT: {"type": "string", "pattern": r"^deleted (1 file|\d+ files)$"}})
    about = "Removes files of one directory, never a directory."
    return operation("delete", "export", about, {200: deleted, **errors(404, 409)}, parameters)


def _browsing_paths(formats: Formats) -> Iterator[tuple[str, Json]]:
    as_json = query("json", STRING, "A directory as JSON.", allowEmptyValue=True)
    forms = choice(*formats.tree)
    about = "A directory as an archive"
    for_root = (as_json, query("archive", forms, f"{about}."))
    for_any = (as_json, query("archive", STRING, f"{about}, as at `/`; ignored for a file."))
    page = {HTML: STRING, JSON: listed(ref("schemas", "Entry")), **dict.fromkeys(_ARCHIVES, {})}
    root = {200: answer("A page, or what was asked for.", page, _ENTITY), **errors(404)}
    moved = answer(
        "A directory's own path ends with a slash.", {TEXT: {}}, {"Location": header("That path.")}
    )
    own = "|".join(sorted(OWN_NAMES)).replace(".", r"\.")
    free = {**NAME, "pattern": rf"^(?!(?:{own})$){ONE_NAME}$"}
    for prefix, name, schema in (("", "browse", free), ("/-/files", "browseFiles", NAME)):
        look = reading(operation(f"{name}Root", "browse", "The root.", root, for_root))
        yield prefix or "/", {**look, **changes.put_and_post(f"{name}Root", [], formats.conflict)}
        about = "A name in the root; deeper paths have a segment for each name."
        where = segment("path", schema, about, example="notes.txt")
        about = "A file for looking at; a directory as a page, as JSON or as an archive."
        answers = {301: moved, **_file_answers()}
        below = operation(name, "browse", about, answers, (where, *for_any, *_CONDITIONS))
        where = segment("path", changes.new_name(own if not prefix else "-"), about, example="new.txt")
        changing = changes.put_and_post(name, [where], formats.conflict)
        yield f"{prefix}/{{path}}", {**reading(below), **changing}


def _own_paths() -> Iterator[tuple[str, Json]]:
    kind = "image/vnd.microsoft.icon"
    icon = operation("favicon", "daemon", "An icon.", _file_answers(kind), _CONDITIONS, security=OPEN)
    yield "/favicon.ico", reading(icon)
    parameters = (segment("name", NAME, "The file's name.", example="style.css"), *_CONDITIONS)
    about = "What our pages load."
    static = operation("static", "daemon", about, _file_answers(), parameters, security=OPEN)
    yield "/-/static/{name}", reading(static)
    well = {200: answer("It serves.", {TEXT: {"type": "string", "const": "ok"}})}
    yield "/-/health", reading(operation("health", "daemon", "Says `ok`.", well, security=OPEN))
    numbers = {200: answer("Prometheus' text format.", {TEXT: STRING})}
    yield "/-/metrics", reading(operation("metrics", "daemon", "Numbers about the daemon.", numbers))
    this = {200: answer("OpenAPI 3.1.", {JSON: {"type": "object", "required": ["openapi", "paths"]}})}
    yield "/-/openapi.json", reading(operation("openapi", "daemon", "This document.", this, security=OPEN))


def _job_paths() -> Iterator[tuple[str, Json]]:
    one = (segment("id", {"type": "string", "pattern": "^[A-Za-z0-9_-]+$"}, "The job's id."),)
    bounds = {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100}
    limit = query("limit", bounds, "At most so many.")
    wait = query("wait", {"type": "integer", "minimum": 0, "maximum": 60}, "Seconds to wait for its end.")
    many = {200: answer("Newest first.", {JSON: listed(ref("schemas", "Job"))})}
    job = {200: answer("The job.", _JOB), **errors(404)}
    again = {202: answer("It is sent again.", _JOB), **errors(404, 409)}
    told = {200: answer("Server-Sent Events (WHATWG HTML, section 9.2).", {EVENTS: {}})}

    about = "The caller's jobs; an admin's are all."
    listing = operation("listJobs", "jobs", about, many, (limit,))
    yield "/-/jobs", {**reading(listing), "post": _new_job()}
    cancelled = job | {202: answer("The job, which ends when its work next looks.", _JOB)}
    cancel = operation("cancelJob", "jobs", "Cancels a job that has not ended.", cancelled, one)
    get = operation("getJob", "jobs", "One job.", job, (*one, wait))
    yield "/-/jobs/{id}", {**reading(get), "delete": cancel}
    about = "What happens to a job, until it has ended."
    watched = {204: answer("It has ended, and nothing will happen."), **told, **errors(404)}
    yield "/-/jobs/{id}/events", reading(operation("watchJob", "jobs", about, watched, one))
    about = "Sends the callback of an ended job again."
    yield "/-/jobs/{id}/redeliver", {"post": operation("redeliver", "jobs", about, again, one)}
    about = "What happens to the caller's jobs."
    yield "/-/events", reading(operation("watchJobs", "jobs", about, told))


def _new_job() -> Json:
    schema = {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[ -~]+$"}
    key = field("Idempotency-Key", "Requests with the same key are one request.", schema)
    example = {"path": "/dumps/notes.txt", "format": "zip"}
    body = {"required": True, "content": {JSON: {"schema": ref("schemas", "NewJob"), "example": example}}}
    made = answer("The job, which is durable.", _JOB, _LOCATION) | {"links": _LINKS}
    answers = {202: made, **errors(404, 409, 415, 429, 507)}
    about = "Compresses a file or a directory beside itself."
    return operation("createJob", "jobs", about, answers, (key,), requestBody=body)


# -- the whole


def document(version: str, server_prefix: str, formats: Formats) -> Json:
    """The document of this version, for paths below `server_prefix` (empty, or such as `/files`)."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "fileexport",
            "version": version,
            "description": _ABOUT,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": server_prefix or "/"}],
        "tags": [
            {"name": "export", "description": "For scripts."},
            {"name": "jobs", "description": "What takes longer than a request."},
            {"name": "browse", "description": "The exported tree by its own paths."},
            {"name": "change", "description": "The exported tree changed: files, forms, entries."},
            {"name": "uploads", "description": "Resumable uploads: tus 1.0."},
            {"name": "people", "description": "Signing in, and links for others."},
            {"name": "daemon", "description": "About the daemon itself."},
        ],
        "paths": dict(
            (
                *_export_paths(formats),
                *_job_paths(),
                *changes.upload_paths(formats.conflict),
                *changes.entry_paths(),
                *people.session_paths(),
                *people.share_paths(),
                *_own_paths(),
                *_browsing_paths(formats),
            )
        ),
        "components": {
            "schemas": {
                **parts.SCHEMAS,
                **changes.SCHEMAS,
                **people.SCHEMAS,
                "Format": choice(*formats.job),
            },
            "responses": parts.RESPONSES,
            "securitySchemes": parts.SECURITY_SCHEMES,
        },
    }


@lru_cache(maxsize=1)
def encoded(version: str, server_prefix: str, formats: Formats) -> bytes:
    """The document as JSON."""
    return msgspec.json.encode(document(version, server_prefix, formats))
