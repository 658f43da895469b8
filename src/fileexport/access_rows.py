"""What the access log has of a request of either door."""

from __future__ import annotations

import os
from collections.abc import Sequence

from fileexport.errors import PeerGone, row_for
from fileexport.logs import Access
from fileexport.transfer_connection import Finished
from fileexport.transfer_streams import Cancelled
from fileexport.web.request import Request
from fileexport.web.share_links import without_key
from fileexport.wire import messages as m

#: The status of an operation that its client cancelled or left, as nginx has it.
_CLIENT_LEFT = 499


def of_request(request: Request, seconds: float) -> Access:
    """A request of HTTP's; `seconds` is how long it took."""
    return Access(
        peer=request.client or "unix",
        who=request.who.name if request.who else "-",
        method=request.method,
        target=without_key(request.head.target),
        version=b"HTTP/1.%d" % request.head.minor,
        status=request.status,
        length=request.sent,
        seconds=seconds,
        referrer=without_key(_first(request.fields(b"referer")) or b"") or None,
        agent=_first(request.fields(b"user-agent")),
    )


def of_operation(done: Finished) -> Access:
    """An operation of the transfer protocol; a status is that of the same error over HTTP."""
    status = 200 if done.error is None else int(row_for(done.error).http)
    if isinstance(done.error, Cancelled | PeerGone):
        status = _CLIENT_LEFT
    return Access(
        peer=done.peer,
        who=done.who,
        method=str(type(done.operation).__struct_config__.tag).encode("ascii"),
        target=os.fsencode(_target(done.operation)),
        version=b"transfer/1",
        status=status,
        length=done.length,
        seconds=done.seconds,
        referrer=None,
        agent=None,
    )


def _target(operation: m.Open) -> str:
    """What it was about: a path, or a job; behind that, as in a URL, what else there is to know."""
    match operation:
        case m.ReadFiles() | m.HashFiles():
            return f"{operation.paths[0]}?files={len(operation.paths)}"
        case m.Change():
            return f"{operation.steps[0].path}?steps={len(operation.steps)}"
        case m.Rename():
            return f"{operation.path}?target={operation.target}"
    return str(getattr(operation, "path", getattr(operation, "id", "-")))


def _first(fields: Sequence[bytes]) -> bytes | None:
    return fields[0] if fields else None
