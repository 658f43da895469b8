"""Requests that a web page makes behind its reader's back are refused: Host, Origin, Sec-Fetch-Site.

The export API changes state by GET, so the method says nothing. A browser that follows a link or loads an
image to a plain-HTTP origin sends neither Origin nor Sec-Fetch-Site; its User-Agent is what is left then.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

Fields = Callable[[bytes], Sequence[bytes]]

#: By these a browser says which page sent a request: the cookie of a session counts for no change without.
FROM_PAGE = (b"origin", b"sec-fetch-site")

#: RFC 3986 host and optional port; a name's characters are those that DNS and /etc/hosts know.
_HOST = re.compile(
    rb"(?:\[(?P<v6>[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*)\]|(?P<name>[0-9A-Za-z_.-]+))(?::(?P<port>[0-9]{0,5}))?"
)


#: Ports that an origin does not name.
_PORTS = {"http": ":80", "https": ":443"}


@dataclass(frozen=True, slots=True)
class Names:
    """The Host names that requests may carry, and the origin that a reverse proxy shows to the world."""

    hosts: frozenset[str]
    public_origin: str | None = None


def host_name(value: bytes) -> str | None:
    """The name or address in a Host header, lower case and without its port; None where it is malformed."""
    match = _HOST.fullmatch(value)
    if match is None or int(match["port"] or 0) > 65535:
        return None
    if match["v6"]:
        return _address(match["v6"].decode("ascii"))
    name = match["name"].decode("ascii").lower()
    return name.removesuffix(".") or None


def _address(text: str) -> str | None:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        return None


def host_is_allowed(value: bytes, names: Names) -> bool:
    """Whether this Host may reach us: an address literal, or a name that is ours (DNS rebinding is not)."""
    name = host_name(value)
    if name is None:
        return False
    return name in names.hosts or _address(name) is not None


def allowed_names(machine: str, extra: Collection[str], public_host: str | None) -> frozenset[str]:
    """The names beside address literals: localhost, this machine's, those allowed, the public one."""
    machine = machine.lower()
    found = {"localhost", machine, machine.partition(".")[0], *(name.lower() for name in extra)}
    if public_host:
        found.add(public_host.lower())
    return frozenset(found - {""})


def from_browser(fields: Fields) -> bool:
    """Whether a browser sent a request: one that says what pages it shows, or names itself as all do."""
    if any(b"text/html" in value.lower() for value in fields(b"accept")):
        return True
    return _is_browser(fields)


def _is_browser(fields: Fields) -> bool:
    return any(b"mozilla/" in agent.lower() for agent in fields(b"user-agent"))


def cross_site(method: bytes, fields: Fields, *, secure: bool, names: Names) -> str | None:
    """Why a changing request must be refused, or None where it speaks for its sender."""
    if any(site.strip().lower() != b"same-origin" for site in fields(b"sec-fetch-site")):
        return "a browser sent this for another site"
    origins = fields(b"origin")
    if origins and (len(origins) > 1 or not _is_own(origins[0], fields(b"host"), secure, names)):
        return "a page of another origin sent this"
    browser = _is_browser(fields)
    if browser and method in (b"GET", b"HEAD"):
        return "a browser does not change anything by following a link"
    if browser and not origins and not fields(b"sec-fetch-site"):
        # Too old to say where its form came from.
        return "this browser does not say which page sent this"
    return None


def _is_own(origin: bytes, hosts: Sequence[bytes], secure: bool, names: Names) -> bool:
    text = origin.decode("latin-1").lower()
    public = names.public_origin
    if text == public:
        return True
    if len(hosts) != 1:
        return False
    host = hosts[0].decode("latin-1").lower()
    # Whoever names the public host came through the reverse proxy: what our own connection is says nothing.
    if public is not None and public in (_origin("http", host), _origin("https", host)):
        return False
    scheme = "https" if secure else "http"
    return text.removesuffix(_PORTS[scheme]) == _origin(scheme, host)


def _origin(scheme: str, host: str) -> str:
    return f"{scheme}://{host.removesuffix(_PORTS[scheme])}"
