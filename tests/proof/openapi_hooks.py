"""What schemathesis is told beside its command line: `tests.proof.test_openapi` names this module to it."""

from __future__ import annotations

import re
from typing import Any

import schemathesis

#: The beginning of a webhook's URL, and one where nobody listens.
HOST = re.compile(r"https?://[A-Z0-9._:\[\]-]+(?=[/?]|$)", re.IGNORECASE)
NOWHERE = "http://127.0.0.1:9"

# A part of an upload is bytes.
schemathesis.serializer.alias("application/offset+octet-stream", "application/octet-stream")


@schemathesis.hook
def before_load_schema(context: schemathesis.HookContext, raw_schema: dict[str, Any]) -> None:
    """The daemon under test lets nobody in without a token: what needs one has no alternative."""
    for path in raw_schema["paths"].values():
        for operation in path.values():
            operation["security"] = [way for way in operation["security"] if way]


@schemathesis.hook
def before_call(
    context: schemathesis.HookContext, case: schemathesis.Case[Any], kwargs: dict[str, Any]
) -> None:
    """No callback leaves this machine, and no name that was made up is looked up."""
    body = case.body
    if isinstance(body, dict) and isinstance(url := body.get("callback"), str):
        body["callback"] = HOST.sub(NOWHERE, url, count=1)
    query = case.query or {}
    if query.get("host") and not isinstance(query["host"], dict):
        query["host"] = "127.0.0.1"
