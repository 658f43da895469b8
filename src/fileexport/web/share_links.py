"""Links to what is shared: their form, what a log may show of one, and the page that lists them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from fileexport.web import pages
from fileexport.web.names import visible
from fileexport.web.routes import one_spelling

SHARE_ROUTE = "/-/share"
SHARES_ROUTE = "/-/shares"

#: However often a parameter of an address was encoded.
_SLASH = rb"(?:/|%(?:25)*2f)"
#: The way to a share in an address, or in a parameter of one; then 16 characters that name the share and
#: those that open it, or what is no such thing: all of that.
_KEY = re.compile(
    rb"(-S+(?:\.\.?S+)*shareS+)(?:([\w-]{16})([\w-]*)(?=S|[?#&]|\Z)|.+)".replace(b"S", _SLASH),
    re.IGNORECASE | re.DOTALL,
)


def without_key(address: bytes) -> bytes:
    """An address for a log: of a share's link there is what names the share, and not what opens it."""
    if b"%" not in address and b"share" not in address.lower():
        return address
    spelled = one_spelling(address)
    masked = _KEY.sub(_mask, spelled)
    return address if masked == spelled else masked


def _mask(match: re.Match[bytes]) -> bytes:
    way, name, opening = match.groups()
    return way + (name or b"") + (b"..." if opening or name is None else b"")


@dataclass(frozen=True, slots=True)
class SharedLink:
    """A share as its owner sees it: `path` as a URL has it, times in seconds since 1970."""

    id: str
    path: str
    type: str
    url: str
    created: float
    expires: float
    owner: str


def shares_page(links: Sequence[tuple[SharedLink, str]], *, prefix: str, owners: bool) -> bytes:
    """Write the page of links as UTF-8 HTML; each comes with its path for people. `owners`: say whose."""
    return pages.render(
        "shares.html",
        prefix,
        owners=owners,
        shares=[
            {
                "id": link.id,
                "label": visible(label),
                "url": link.url,
                "until": datetime.fromtimestamp(link.expires, UTC).strftime("%Y-%m-%d %H:%M"),
                "moment": datetime.fromtimestamp(link.expires, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
                "owner": visible(link.owner),
                "revoke": f"{prefix}{SHARES_ROUTE}/{link.id}/revoke",
            }
            for link, label in links
        ],
    )
