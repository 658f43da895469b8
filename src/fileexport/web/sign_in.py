"""The page where a token is given for a session, and where it leads.

Pure: it is the answer to whoever asks for it, and to a browser that may not see what it asked for.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from urllib.parse import quote, urlsplit

from fileexport.web import pages
from fileexport.web.names import visible
from fileexport.web.request import Request
from fileexport.web.routes import one_spelling

SIGN_IN_ROUTE = "/-/sign-in"
SIGN_OUT_ROUTE = "/-/sign-out"
#: Characters of a path that is gone back to.
MAX_GOAL = 2048

#: A path of this server, and no other server's: browsers take `//` and `/\` for the beginning of a host.
_OWN = re.compile(r"/(?![/\\])[!-\[\]-~]*")
#: Between the segments of a path; a reverse proxy may decode one before it resolves dots.
_SLASH = re.compile(rb"/|%2f", re.IGNORECASE)


def own_path(text: str | None, prefix: str) -> str:
    """Where somebody goes on who has signed in or out: `text` where that is one of our paths, else our root.

    Both are as a browser sees them, with the prefix of a reverse proxy.
    """
    root = f"{prefix}/"
    if text is None or len(text) > MAX_GOAL or not text.startswith(root) or not _OWN.fullmatch(text):
        return root
    path = one_spelling(re.split("[?#]", text[len(prefix) :])[0].encode("ascii"))
    # Browsers resolve dots before they ask, encoded ones as well: out of the prefix, or to the sign-in.
    if {b".", b".."} & set(_SLASH.split(path)):
        return root
    # The sign-in leads nowhere, and the sign-out is no page.
    return root if path.decode("ascii") in (SIGN_IN_ROUTE, SIGN_OUT_ROUTE) else text


def way_back(request: Request, prefix: str) -> str:
    """Where whoever sent a request wants to be: what it asked for, or the page that it came from."""
    if request.is_safe:
        # Whatever stands there unencoded: a header of ours is ASCII.
        target = quote(request.head.target, safe="!#$%&'()*+,/:;=?@[]~")
        return own_path(prefix + target, prefix)
    for referrer in request.fields(b"referer")[:1]:
        try:
            found = urlsplit(referrer.decode("ascii"))
        except ValueError:
            continue
        if found.netloc.encode("ascii").lower() == (request.head.host or b"").lower():
            return own_path(found.path + (f"?{found.query}" if found.query else ""), prefix)
    return own_path(None, prefix)


def from_elsewhere(request: Request) -> bool:
    """Whether a page of another site led here: then the browser kept our cookie to itself."""
    sites = request.fields(b"sec-fetch-site")
    return request.is_safe and any(site.lower() in (b"cross-site", b"same-site") for site in sites)


def sign_in_page(
    *,
    prefix: str,
    goal: str,
    status: HTTPStatus = HTTPStatus.OK,
    sentence: str = "",
    who: str = "",
    elsewhere: bool = False,
) -> bytes:
    """Write the page as UTF-8 HTML. `goal` is an `own_path`, `who` the name of whoever is signed in.

    `sentence` says what was wrong, `elsewhere` whether a session may be there that nobody told us of.
    """
    return pages.render(
        "sign_in.html",
        prefix,
        goal=goal,
        status=int(status) if status >= HTTPStatus.BAD_REQUEST else 0,
        sentence=visible(sentence),
        who=visible(who),
        elsewhere=elsewhere,
        action=prefix + SIGN_IN_ROUTE,
    )
