"""What schemathesis is told of tus: `tests.proof.test_tus_openapi` names this module to it.

The description's paths are examples, as it says itself, and it describes extensions that a server may have.
"""

from __future__ import annotations

import json
import os
from itertools import count
from typing import Any
from urllib.request import Request, urlopen

import schemathesis

#: Extensions that are not announced, and whose fields a client therefore does not send.
NOT_ANNOUNCED = ("Upload-Concat", "Upload-Defer-Length")
#: What the protocol's text has, and the description's table of answers has not: a request that cannot be
#: read, a conflict of offsets, a type that is not the protocol's, and no room.
ANSWERS = {"POST": ("400", "404", "409", "415", "507"), "PATCH": ("409", "413"), "DELETE": ("404", "410")}
_numbers = count()


@schemathesis.hook
def before_load_schema(context: schemathesis.HookContext, raw_schema: dict[str, Any]) -> None:
    """The same description, of our paths and our extensions."""
    raw_schema["servers"] = [{"url": "/"}]
    paths = {path.replace("/files", "/-/uploads"): found for path, found in raw_schema["paths"].items()}
    raw_schema["paths"] = json.loads(json.dumps(paths))
    # The list of unfinished uploads is ours: of GET the protocol says nothing.
    raw_schema["paths"]["/-/uploads"]["get"] = {"responses": {"200": {"description": "what is unfinished"}}}
    for path in raw_schema["paths"].values():
        for method, operation in path.items():
            _complete(operation, ANSWERS.get(method.upper(), ()))


def _complete(operation: dict[str, Any], answers: tuple[str, ...]) -> None:
    wanted = [one for one in operation.get("parameters", ()) if one["name"] not in NOT_ANNOUNCED]
    for one in wanted:
        if one["schema"]["type"] == "integer":
            # "The value MUST be a non-negative integer."
            one["schema"]["minimum"] = 0
    # Content-Length is HTTP's own, and the client's to say.
    operation["parameters"] = [one for one in wanted if one["name"] != "Content-Length"]
    for status in answers:
        operation["responses"].setdefault(status, {"description": "see the protocol"})
    for answer in operation["responses"].values():
        for field in answer.get("headers", {}).values():
            # Some are written as OpenAPI 2 had it.
            field.setdefault("schema", {"type": field.pop("type", "string")})


@schemathesis.hook
def before_call(
    context: schemathesis.HookContext, case: schemathesis.Case[Any], kwargs: dict[str, Any]
) -> None:
    """Every second request to an upload finds one."""
    if "{id}" in case.path and next(_numbers) % 2:
        case.path_parameters["id"] = _begun()
        if case.method == "PATCH" and case.headers is not None:
            case.headers.setdefault("Content-Type", "application/offset+octet-stream")


def _begun() -> str:
    """A new upload's id."""
    fields = {"Tus-Resumable": "1.0.0", "Upload-Length": "10"}
    asked = Request(f"{os.environ['TUS_DAEMON']}/-/uploads", method="POST", headers=fields)
    with urlopen(asked) as answer:
        return str(answer.headers["Location"]).rpartition("/")[2]
