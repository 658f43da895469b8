"""What the paths of the OpenAPI document share: schemas, parameters, answers, ways to say who asks."""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

from fileexport.paths import MAX_NAME, MAX_PATH

Json = dict[str, Any]

#: One name: no slash, no NUL, neither ``.`` nor ``..``. Our limits are bytes, and characters are never more.
ONE_NAME = rf"(?!\.{{1,2}}(?:/|$))[^/\u0000]{{1,{MAX_NAME}}}"
NAME = {"type": "string", "pattern": f"^{ONE_NAME}$", "maxLength": MAX_NAME}
#: A path from the root: names between slashes; the root itself is ``/``, ``.`` or empty.
PATH = {"type": "string", "pattern": rf"^(?:\.|/?(?:{ONE_NAME}(?:/{ONE_NAME})*/?)?)$", "maxLength": MAX_PATH}
STRING: Json = {"type": "string"}
_HOST = r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::[0-9]{1,5})?"
_REST = r"(?:[A-Za-z0-9._~:/?\[\]@!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*"
_WEBHOOK = rf"^[Hh][Tt][Tt][Pp][Ss]?://{_HOST}(?:[/?]{_REST})?$"

TEXT, HTML, JSON, EVENTS = "text/plain", "text/html", "application/json", "text/event-stream"
FORM = "application/x-www-form-urlencoded"


def ref(kind: str, name: str) -> Json:
    """A reference to a component."""
    return {"$ref": f"#/components/{kind}/{name}"}


def record(properties: Json, *, optional: Iterable[str] = (), **more: Any) -> Json:
    """The schema of an object whose properties are all there, but for the optional ones."""
    required = [name for name in properties if name not in set(optional)]
    return {"type": "object", "properties": properties, "required": required, **more}


def listed(items: Json) -> Json:
    """The schema of a list."""
    return {"type": "array", "items": items}


def or_null(schema: Json) -> Json:
    """The same, or null."""
    return {"anyOf": [schema, {"type": "null"}]}


def choice(*values: str, default: str | None = None) -> Json:
    """The schema of one of some words."""
    found: Json = {"type": "string", "enum": list(values)}
    return found if default is None else {**found, "default": default}


#: What a switch takes in a query.
SWITCH = choice("1", "0", "true", "false", "yes", "no", "")


def query(name: str, schema: Json, about: str, *, required: bool = False, **more: Any) -> Json:
    """A parameter of the query."""
    return {
        "name": name,
        "in": "query",
        "required": required,
        "description": about,
        "schema": schema,
        **more,
    }


def field(name: str, about: str, schema: Json | None = None) -> Json:
    """A header field of the request."""
    return {"name": name, "in": "header", "description": about, "schema": schema or {"type": "string"}}


def segment(name: str, schema: Json, about: str, **more: Any) -> Json:
    """A parameter in the path."""
    return {"name": name, "in": "path", "required": True, "description": about, "schema": schema, **more}


def body(kind: str, schema: Json, *, required: bool = True) -> Json:
    """What a request brings along, of one media type."""
    return {"required": required, "content": {kind: {"schema": schema} if schema else {}}}


def form_of(properties: Json, *required: str) -> Json:
    """The schema of a form with these fields; others are passed over."""
    found = {"type": "object", "properties": properties}
    return {**found, "required": list(required)} if required else found


def answer(about: str, content: Json | None = None, headers: Json | None = None) -> Json:
    """An answer; `content` maps media types to schemas, an empty one says nothing of the body."""
    found: Json = {"description": about}
    if content is not None:
        found["content"] = {kind: {"schema": schema} if schema else {} for kind, schema in content.items()}
    if headers is not None:
        found["headers"] = headers
    return found


def header(about: str, *, required: bool = True) -> Json:
    """A header field of an answer."""
    return {"description": about, "required": required, "schema": {"type": "string"}}


# -- schemas

_TIME = {"type": "number", "description": "Seconds since 1970."}
_COUNT = {"type": "integer", "minimum": 0}
_TYPE = choice("file", "directory", "link", "other")
_SKIPPED = record({"name": STRING, "why": STRING})
_FORMAT = ref("schemas", "Format")

#: Beside them stands `Format`: what a job can make.
SCHEMAS: Json = {
    "Problem": record(
        {"type": STRING, "title": STRING, "status": {"type": "integer"}, "detail": STRING},
        description="RFC 9457.",
    ),
    "File": record(
        {"name": STRING, "size": _COUNT, "type": _TYPE, "mtime": _TIME, "url": STRING},
        optional=("type", "mtime", "url"),
        description="`url` is there with `details`, and for a name that is not UTF-8.",
    ),
    "Entry": record({"name": STRING, "type": _TYPE, "size": _COUNT, "mtime": _TIME}),
    "NewJob": record(
        {
            "path": {**PATH, "description": "The file or directory to compress.", "minLength": 1},
            "format": {**_FORMAT, "default": "tar.gz", "description": "`gz` and `zst` are for files."},
            "sums": {
                "type": "boolean",
                "default": False,
                "description": "Adds SHA256SUMS; not for `gz` and `zst`.",
            },
            "callback": {
                "type": ["string", "null"],
                "pattern": _WEBHOOK,
                "maxLength": 2048,
                "description": "Told of the end by a signed webhook; the token needs a `secret=`.",
            },
        },
        optional=("format", "sums", "callback"),
        additionalProperties=False,
    ),
    "Progress": record(
        {
            "bytes": _COUNT,
            "bytes_total": or_null(_COUNT),
            "files": _COUNT,
            "files_total": or_null(_COUNT),
            "rate": {"type": "number", "minimum": 0, "description": "Bytes a second."},
            "eta": or_null({"type": "number", "minimum": 0, "description": "Seconds."}),
        }
    ),
    "Result": record(
        {
            "path": STRING,
            "url": STRING,
            "size": _COUNT,
            "sha256": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
            "files": _COUNT,
            "skipped": record({"count": _COUNT, "entries": listed(_SKIPPED)}, optional=("entries",)),
        },
        description="The `entries` that were skipped are there where one job is asked for.",
    ),
    "Attempt": record(
        {
            "at": _TIME,
            "status": or_null({"type": "integer"}),
            "error": or_null(STRING),
            "first_line": {"type": "string", "description": "Of the answer's body."},
        },
    ),
    "Callback": record(
        {
            "id": STRING,
            "kind": choice("get", "webhook"),
            "url": STRING,
            "state": choice("waiting", "due", "delivered", "gone", "given_up"),
            "due": or_null(_TIME),
            "attempts": listed(ref("schemas", "Attempt")),
        }
    ),
    "Job": record(
        {
            "id": STRING,
            "state": choice("queued", "running", "done", "failed", "cancelled"),
            "path": STRING,
            "target": STRING,
            "format": _FORMAT,
            "created": _TIME,
            "started": or_null(_TIME),
            "ended": or_null(_TIME),
            "cancelling": {"type": "boolean", "description": "It was cancelled, and has not ended yet."},
            "progress": or_null(ref("schemas", "Progress")),
            "result": or_null(ref("schemas", "Result")),
            "error": or_null(STRING),
            "callbacks": listed(ref("schemas", "Callback")),
        },
        optional=("callbacks",),
        description="`callbacks` is there where one job is asked for.",
    ),
}


# -- answers

_ERRORS: dict[HTTPStatus, str] = {
    HTTPStatus.BAD_REQUEST: "The request, a parameter or a path cannot be understood.",
    HTTPStatus.UNAUTHORIZED: "A token is needed, or the one that was sent is wrong.",
    HTTPStatus.FORBIDDEN: "The token does not grant it, or the Host, the Origin or the disk forbids it.",
    HTTPStatus.NOT_FOUND: "There is no such thing, or the caller may not see it.",
    HTTPStatus.REQUEST_TIMEOUT: "The request did not come in time.",
    HTTPStatus.CONFLICT: "The state of a file or job does not allow it.",
    HTTPStatus.GONE: "It was there, and has expired.",
    HTTPStatus.METHOD_NOT_ALLOWED: "The path has no such method.",
    HTTPStatus.PRECONDITION_FAILED: "The file is not in the state that was asked for.",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "The body, or the file, is too long.",
    HTTPStatus.REQUEST_URI_TOO_LONG: "The request line is too long.",
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: "The body is of a type that is not read here.",
    HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE: "The file has no such range.",
    HTTPStatus.EXPECTATION_FAILED: "Something other than 100-continue was expected.",
    HTTPStatus.LOCKED: "Somebody else writes there now.",
    HTTPStatus.MISDIRECTED_REQUEST: "https was asked for where there is no TLS.",
    HTTPStatus.TOO_MANY_REQUESTS: "Too many jobs are queued.",
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE: "The header is too long.",
    HTTPStatus.INTERNAL_SERVER_ERROR: "A mistake of ours; the log has it.",
    HTTPStatus.NOT_IMPLEMENTED: "A method or transfer coding that is not known here.",
    HTTPStatus.SERVICE_UNAVAILABLE: "Too much to do, the file changes, or the daemon is stopping.",
    HTTPStatus.HTTP_VERSION_NOT_SUPPORTED: "Only HTTP/1 is spoken here.",
    HTTPStatus.INSUFFICIENT_STORAGE: "The disk is full.",
}
_ERROR_HEADERS: dict[HTTPStatus, Json] = {
    HTTPStatus.UNAUTHORIZED: {"WWW-Authenticate": header("Bearer, and Basic.")},
    HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE: {"Content-Range": header("The size: `bytes */SIZE`.")},
    HTTPStatus.TOO_MANY_REQUESTS: {"Retry-After": header("Seconds.")},
    HTTPStatus.LOCKED: {"Retry-After": header("Seconds.", required=False)},
    HTTPStatus.SERVICE_UNAVAILABLE: {"Retry-After": header("Seconds.", required=False)},
}
#: What any request can be answered, and what one that needs a right can be answered beside.
ALWAYS = (400, 403, 408, 413, 414, 417, 421, 431, 500, 501, 503, 505)
WITH_RIGHT = (401,)


def _error(status: HTTPStatus) -> Json:
    content = {"application/problem+json": ref("schemas", "Problem"), TEXT: STRING, HTML: STRING}
    return answer(_ERRORS[status], content, _ERROR_HEADERS.get(status))


#: The last is a status of tus alone.
RESPONSES: Json = {
    **{f"{status:d}": _error(status) for status in _ERRORS},
    "460": answer("The content is not what its checksum says: it is to be sent again.", {TEXT: STRING}),
}

SECURITY_SCHEMES: Json = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "A token of the daemon's token file."},
    "basic": {"type": "http", "scheme": "basic", "description": "The token is the password; any user name."},
}


# -- operations

Answers = dict[int, Json]

#: Who may ask: by any token, by one that is not sent by a browser on its own, or anybody at all.
TOKEN: list[Json] = [{"bearer": []}, {"basic": []}, {}]
BEARER: list[Json] = [{"bearer": []}, {}]
OPEN: list[Json] = []


def errors(*statuses: int) -> Answers:
    return {status: ref("responses", str(status)) for status in statuses}


def operation(
    name: str,
    tag: str,
    summary: str,
    answers: Answers,
    parameters: Iterable[Json] = (),
    *,
    security: list[Json] = TOKEN,
    **more: object,
) -> Json:
    """One method of a path; `answers` are those that it has beside those of all requests."""
    common = errors(*ALWAYS, *(WITH_RIGHT if security else ()))
    responses = {str(status): found for status, found in sorted((common | answers).items())}
    return {
        "operationId": name,
        "summary": summary,
        "tags": [tag],
        "security": security,
        "parameters": list(parameters),
        "responses": responses,
        **more,
    }


def reading(operation: Json) -> Json:
    """A path that is only read: GET, and HEAD with the same header and no body."""
    name: str = operation["operationId"]
    responses = {
        status: {key: value for key, value in _resolved(response).items() if key != "content"}
        for status, response in operation["responses"].items()
    }
    head = {
        **operation,
        "operationId": f"head{name[0].upper()}{name[1:]}",
        "summary": f"{operation['summary']} The header only.",
        "responses": responses,
    }
    return {"get": operation, "head": head}


def _resolved(response: Json) -> Json:
    found: Json = RESPONSES[response["$ref"].rpartition("/")[2]] if "$ref" in response else response
    return found


def acting(methods: Iterable[str], operation: Json) -> Json:
    """A path that changes something by each of these methods. Basic proves no intention in a GET."""
    name: str = operation["operationId"]
    return {
        method: {
            **operation,
            "operationId": name if method == "get" else f"{name}By{method.capitalize()}",
            "security": BEARER if method == "get" else TOKEN,
        }
        for method in methods
    }
