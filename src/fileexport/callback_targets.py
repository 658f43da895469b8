"""Whom a job may call back: reading the target that a client names, and judging the addresses behind it.

A callback makes the daemon connect to where a client says, from inside the daemon's network (server-side
request forgery). So a target is read strictly, in one spelling, and every address that its name has must
pass one table. `Targets.choose` is asked twice: when a job is ordered, and again for each delivery with the
addresses of that moment, of which only those that passed are dialled.

Pure: no sockets and no names are resolved; the caller passes the addresses.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import NamedTuple
from urllib.parse import quote_from_bytes

from fileexport.addresses import Address, plain, read_address
from fileexport.errors import BadRequestError, CallbackRefusedError

#: Characters of a callback's URL: webhooks in use have a few hundred; each is kept with its job.
MAX_URL = 2048
#: Addresses that a name may have. Each is judged; no service needs so many.
MAX_ADDRESSES = 64

_PORT_OF = {"http": 80, "https": 443}
_URL = re.compile(r"(https?)://([^/?]*)([/?].*)?", re.IGNORECASE)
#: What a URL is written in (RFC 3986, 2.2 and 2.3) without the mark of a fragment, which is never sent.
_URL_TEXT = re.compile(r"(?:[A-Za-z0-9._~:/?\[\]@!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*")
_AUTHORITY = re.compile(r"(\[[^\]]*\]|[^\[\]:]*)(?::([0-9]{1,5}))?")
_PORT = re.compile(r"[0-9]{1,5}")
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
#: The last label of what some resolver would take for a number, and so for an IPv4 address (WHATWG URL, 3.5).
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_STRAY_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
#: Characters of a path and query that stay as they are when one is written; ``%`` belongs to a code by then.
_PATH_SAFE = "/?:@!$&'()*+,;=~%"


def _networks(*texts: str) -> tuple[IPv4Network | IPv6Network, ...]:
    return tuple(ip_network(text) for text in texts)


#: Where a callback never goes, whoever allowed it. An explicit table: what `ipaddress.is_global` says of
#: some of these differs between versions of Python, and it lets several pass.
NEVER = _networks(
    "0.0.0.0/8",  # "this network" (RFC 791); 0.0.0.0 reaches this very machine
    "169.254.0.0/16",  # link-local (RFC 3927), with the metadata of most clouds at 169.254.169.254
    "100.100.100.200/32",  # metadata (Alibaba)
    "168.63.129.16/32",  # metadata (Azure)
    "192.0.0.192/32",  # metadata (Oracle)
    "224.0.0.0/4",  # multicast (RFC 5771)
    "240.0.0.0/4",  # reserved (RFC 1112), with the broadcast address
    "::/128",  # unspecified; it reaches this very machine
    "fe80::/10",  # link-local (RFC 4291)
    "fec0::/10",  # site-local (RFC 3879, deprecated)
    "ff00::/8",  # multicast (RFC 4291)
    "fd00:ec2::254/128",  # metadata (Amazon)
    "fd20:ce::254/128",  # metadata (Google)
    "100::/64",  # discard (RFC 6666)
    # IPv4 in disguises that nothing in use needs any more, whatever they hold:
    "::ffff:0:0:0/96",  # translated (RFC 2765)
    "64:ff9b:1::/48",  # local NAT64 (RFC 8215); where the IPv4 address stands is not known
    "2001::/32",  # Teredo (RFC 4380)
    "2002::/16",  # 6to4 (RFC 3056)
)
#: ``::a.b.c.d`` (RFC 4291 2.5.5.1, deprecated), which ``::1`` looks like.
_COMPATIBLE = IPv6Network("::/96")
#: IPv4 reached through a translator (RFC 6052); with DNS64 such an address is an ordinary one.
_NAT64 = IPv6Network("64:ff9b::/96")
#: The upper half of an ISATAP interface identifier (RFC 5214): IPv4 follows.
_ISATAP = (0x0000_5EFE, 0x0200_5EFE)


def _meanings(address: Address) -> tuple[Address, ...]:
    """The address, and the IPv4 address that it may stand for."""
    if isinstance(address, IPv4Address):
        return (address,)
    number = int(address)
    if address in _NAT64 or (number >> 32) & 0xFFFF_FFFF in _ISATAP:
        return address, IPv4Address(number & 0xFFFF_FFFF)
    return (address,)


def _is_never(address: Address) -> bool:
    if address in _COMPATIBLE and not address.is_loopback:
        return True
    return any(address in network for network in NEVER)


def read_host(text: str) -> str | Address:
    """Read a host: a canonical dotted quad, an IPv6 address in brackets, or a name, which comes out in
    lower case.

    Raises ValueError for everything else: zone ids, octal, hexadecimal or short spellings of IPv4, a dot at
    the end, letters beyond ASCII.
    """
    if text.startswith("["):
        literal = text[1:-1]
        if not text.endswith("]") or ":" not in literal or len(literal) > 45 or "%" in literal:
            raise ValueError("is not an IPv6 address in brackets")
        return plain(IPv6Address(literal))
    host = text.lower()
    labels = host.split(".")
    if not text.isascii() or len(host) > 253 or not all(map(_LABEL.fullmatch, labels)):
        raise ValueError("is not a host name or an address")
    if _NUMBER.fullmatch(labels[-1]):
        return IPv4Address(host)
    return host


class HostPort(NamedTuple):
    """A host that the operator allows: a name in lower case or an address; the port None: every port."""

    host: str | Address
    port: int | None = None

    @classmethod
    def parse(cls, text: str) -> HostPort:
        """Read ``HOST`` or ``HOST:PORT``, an IPv6 address in brackets; raises ValueError."""
        match = _AUTHORITY.fullmatch(text)
        if not match:
            raise ValueError("is not HOST or HOST:PORT (an IPv6 address stands in brackets)")
        port = None if match[2] is None else int(match[2])
        if port is not None and not 1 <= port <= 65535:
            raise ValueError("names a port that is none (1 to 65535)")
        return cls(read_host(match[1]), port)


class Asker(NamedTuple):
    """Who wants to be called back.

    `address` is the requester's own (None: a UNIX socket has none); `loopback_allowed` says that the
    requester is a process of this machine that the uid rule let in.
    """

    address: Address | None = None
    loopback_allowed: bool = False

    @classmethod
    def at(cls, host: str | None, loopback_allowed: bool) -> Asker:
        """The same from the text of an address; text that is none is nobody's address."""
        try:
            return cls(read_address(host or ""), loopback_allowed)
        except ValueError:
            return cls(None, loopback_allowed)


@dataclass(frozen=True, slots=True)
class Target:
    """Where a callback goes: read, in one spelling, and fit to be sent; not yet judged.

    `resource` is the path with its query, as it stands in the request line.
    """

    scheme: str
    host: str | Address
    port: int
    resource: str

    @classmethod
    def from_url(cls, url: str) -> Target:
        """Read a webhook's URL. Raises `BadRequestError` (no such URL) and `CallbackRefusedError` (host)."""
        if len(url) > MAX_URL:
            raise BadRequestError(f"the callback's URL is longer than {MAX_URL} characters")
        match = _URL.fullmatch(url)
        if not match or not _URL_TEXT.fullmatch(url):
            raise BadRequestError("the callback's URL is not one like https://example.org/hook?id=1")
        if "@" in match[2]:
            raise BadRequestError("the callback's URL must not hold a user or password")
        authority = _AUTHORITY.fullmatch(match[2])
        if not authority:
            raise BadRequestError("the callback's URL names no host and port")
        scheme = match[1].lower()
        resource = match[3] or "/"
        return cls(
            scheme,
            _host(authority[1]),
            _PORT_OF[scheme] if authority[2] is None else _port(authority[2]),
            _resource(resource if resource.startswith("/") else "/" + resource),
        )

    @classmethod
    def for_get(cls, host: str, port: str, path: str) -> Target:
        """Read the parameters of ``/tar``, decoded; an IPv6 address may stand without brackets.

        In the path, what a request line cannot hold is percent-encoded, and what is encoded already stays.
        Raises `BadRequestError` (port, path), `CallbackRefusedError` (host).
        """
        if not path.startswith("/") or _CONTROL.search(path):
            raise BadRequestError("the callback's path must begin with / and hold no control characters")
        try:
            raw = _STRAY_PERCENT.sub("%25", path).encode("utf-8", "surrogateescape")
        except UnicodeEncodeError:  # a surrogate that stands for no byte
            raise BadRequestError("the callback's path is not text") from None
        resource = _resource(quote_from_bytes(raw, safe=_PATH_SAFE))
        literal = ":" in host and not host.startswith("[")
        target = cls("http", _host(f"[{host}]" if literal else host), _port(port), resource)
        if len(target.url) > MAX_URL:
            raise BadRequestError(f"the callback's URL is longer than {MAX_URL} characters")
        return target

    @property
    def authority(self) -> str:
        """Host and port as a Host header carries them: without the scheme's own port."""
        return self._host_text if self.port == _PORT_OF[self.scheme] else self.place

    @property
    def place(self) -> str:
        """Host and port, always both: targets of one place are one receiver."""
        return f"{self._host_text}:{self.port}"

    @property
    def url(self) -> str:
        """The whole URL; `from_url` reads the same target from it."""
        return f"{self.scheme}://{self.authority}{self.resource}"

    @property
    def _host_text(self) -> str:
        return f"[{self.host}]" if isinstance(self.host, IPv6Address) else str(self.host)


def _host(text: str) -> str | Address:
    try:
        return read_host(text)
    except ValueError:
        raise CallbackRefusedError() from None


def _port(text: str) -> int:
    if not _PORT.fullmatch(text) or not 1 <= int(text) <= 65535:
        raise BadRequestError("the callback's port is not a number from 1 to 65535")
    return int(text)


def _resource(text: str) -> str:
    if text.startswith("//"):
        raise BadRequestError("the callback's path begins with two slashes")
    return text


class Targets:
    """Decides which addresses a callback may go to.

    - `own` gives address and port of every listener of ours, at the moment; a wildcard address stands for
      each address of this machine.
    - `allow`: what the operator allows. A name allows the addresses that this very name has, an address
      allows itself under every name.
    - `is_local` says whether an address belongs to this machine.
    """

    def __init__(
        self,
        own: Callable[[], Iterable[tuple[Address, int]]],
        allow: Collection[HostPort],
        is_local: Callable[[Address], bool],
    ) -> None:
        self._own = own
        self._allow = frozenset(allow)
        self._is_local = is_local

    def choose(self, target: Target, addresses: Sequence[Address], asker: Asker) -> tuple[Address, ...]:
        """The addresses to dial, in the order in which they came, each once.

        `addresses` are all that the target's host has. Raises `CallbackRefusedError`, always with the same
        sentence, unless every one of them is allowed.

        Allowed are the asker's own address, loopback for an asker who may, and what the operator allows;
        never an address in `NEVER`, and never a listener of ours.
        """
        chosen = tuple(dict.fromkeys(map(plain, addresses)))
        if not 0 < len(chosen) <= MAX_ADDRESSES:
            raise CallbackRefusedError()
        own = [(plain(address), port) for address, port in self._own()]
        for address in chosen:
            if not self._is_allowed(target, address, asker):
                raise CallbackRefusedError()
            for meaning in _meanings(address):
                if _is_never(meaning) or self._is_own(meaning, target.port, own):
                    raise CallbackRefusedError()
                if meaning is not address and meaning.is_loopback:
                    raise CallbackRefusedError()
        return chosen

    def _is_allowed(self, target: Target, address: Address, asker: Asker) -> bool:
        for host in (target.host, address):
            if {HostPort(host), HostPort(host, target.port)} & self._allow:
                return True
        if address.is_loopback or self._is_local(address):
            return asker.loopback_allowed
        return asker.address is not None and plain(asker.address) == address

    def _is_own(self, address: Address, port: int, own: Iterable[tuple[Address, int]]) -> bool:
        for ours, its_port in own:
            if its_port == port and (ours == address or (ours.is_unspecified and self._is_local(address))):
                return True
        return False
