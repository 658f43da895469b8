"""Files of an application's own as the answers of its request handler, opened by the jail."""

from __future__ import annotations

import os
from http import HTTPStatus
from urllib.parse import urlencode

from fileexport.disk.jail import Jail, Opened, View
from fileexport.errors import FileNameError, OverloadedError, UnexpectedError, row_for
from fileexport.paths import RelPath, quote_name
from fileexport.web.handlers import HttpRequest, HttpResponse, attach_file, name_without_slash
from fileexport.web.media import media_type

#: Names with a leading dot are not served: `.git`, `.env`, editors' copies.
_VIEW = View(hidden=False)

_UNKNOWN = "application/octet-stream"
#: What a page is made of. `web.media` calls these text, so that no exported file is a script on the daemon's
#: origin; here they are what the application has chosen. Mounted in the daemon, its pages are kept from
#: scripting that origin by `handling`.
_PARTS = {
    "css": "text/css",
    "js": "text/javascript",
    "mjs": "text/javascript",
    "map": "application/json",
    "webmanifest": "application/manifest+json",
}
#: Files that are no text whatever `defaultMime` says.
_BINARY = frozenset("a bin class deb dll dmg dylib exe img iso o pyc pyo rpm so".split())


def static_resource(
    request: HttpRequest,
    response: HttpResponse,
    staticBase: str | os.PathLike[str] = "",
    defaultResource: str = "index.html",
    defaultMime: str = "text/plain",
) -> None:
    """Answer a request with the file below `staticBase` that its path names; a handler, or called by one.

    An empty `staticBase` is the current directory at the time of the call. A directory is answered by its
    `defaultResource`, and redirects to its path with a slash; `defaultMime` is for names that say nothing.
    The jail's rules hold: nothing outside of the base, and no name with a leading dot, is ever found. Only
    GET and HEAD. Ranges and conditions are looked after when the file is sent.

    Where descriptors have run out, the answer is 503. Raises `OSError` where `staticBase` cannot be opened
    for another reason.
    """
    if request.method not in ("GET", "HEAD"):
        response.headers["Allow"] = "GET, HEAD"
        return _say(response, HTTPStatus.METHOD_NOT_ALLOWED, "only GET and HEAD are answered here")
    try:
        jail = Jail(os.fspath(staticBase) or ".", durable=False)
    except OSError as error:
        if row_for(error).kind is not OverloadedError:
            raise
        return _say_overloaded(response)
    try:
        _answer(jail, request, response, defaultResource, defaultMime)
    except (OSError, FileNameError) as error:
        row = row_for(error)
        if row.kind is UnexpectedError:
            raise
        if row.kind is OverloadedError:
            return _say_overloaded(response)
        # What cannot be a name is not there, and of what is not there nothing else is told.
        if isinstance(error, FileNameError) or row.http is HTTPStatus.NOT_FOUND:
            return _say_missing(response)
        _say(response, row.http, row.sentence)
    finally:
        jail.close()


#: By the name that its users have known it by.
staticResource = static_resource


def _answer(
    jail: Jail, request: HttpRequest, response: HttpResponse, default_resource: str, default_mime: str
) -> None:
    slashless = name_without_slash(request)
    # A handler that has taken all names off means the base itself.
    path = RelPath(request.path[:-1] if request.path[-1:] == [""] else request.path)
    opened = jail.open(_VIEW, path)
    if opened.is_directory:
        opened.close()
        if slashless:
            return _redirect(request, response, slashless)
        path = path + RelPath.parse(default_resource)
        opened = jail.open(_VIEW, path)
    elif not slashless:
        opened.close()
        return _say_missing(response)
    if opened.is_directory:
        opened.close()
        return _say_missing(response)
    _put(response, opened, _content_type(path.name, default_mime))


def _put(response: HttpResponse, opened: Opened, content_type: str) -> None:
    attach_file(response, opened)
    response.status = HTTPStatus.OK
    response.headers["Content-Type"] = content_type


def _redirect(request: HttpRequest, response: HttpResponse, name: str) -> None:
    """To the same path with a slash, said relatively: it cannot lead to another host, nor out of a mount."""
    query = f"?{urlencode(request.query, errors='surrogateescape')}" if request.query else ""
    response.headers["Location"] = f"{quote_name(name)}/{query}"
    _say(response, HTTPStatus.MOVED_PERMANENTLY, "the directory's path ends with a slash")


def _say_missing(response: HttpResponse) -> None:
    _say(response, HTTPStatus.NOT_FOUND, row_for(FileNotFoundError()).sentence)


def _say_overloaded(response: HttpResponse) -> None:
    response.headers["Retry-After"] = "10"
    _say(response, HTTPStatus.SERVICE_UNAVAILABLE, row_for(OverloadedError()).sentence)


def _say(response: HttpResponse, status: HTTPStatus, sentence: str) -> None:
    response.status = status
    response.headers["Content-Type"] = "text/plain; charset=utf-8"
    response.data = sentence


def _content_type(name: str, default: str) -> str:
    _, dot, suffix = name.lower().rpartition(".")
    suffix = suffix if dot else ""
    kind = _PARTS.get(suffix) or media_type(name)
    if kind == _UNKNOWN and suffix not in _BINARY:
        kind = default
    is_text = kind.startswith("text/") and "charset" not in kind.lower()
    return f"{kind}; charset=utf-8" if is_text else kind
