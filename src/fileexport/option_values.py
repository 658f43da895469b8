"""What the text of an option means, for each kind: size, port, endpoint, network, host, URL, choice.

Every parser takes one text that is already bounded and free of control characters (see `fileexport.config`),
returns the value, and raises `ValueError` with half a sentence for the user: what is wrong, what to write.
"""

from __future__ import annotations

import enum
import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass

from fileexport.addresses import Network
from fileexport.callback_targets import HostPort
from fileexport.errors import FileNameError
from fileexport.paths import RelPath

#: The endpoint text that leaves a side out.
NO_ENDPOINT = "none"
#: The endpoint text for the listeners of the HTTP side, which the transfer protocol then shares.
SHARED_ENDPOINT = "shared"
#: Bytes of content in one chunk: all that the transfer protocol can carry.
_CHUNKS = range(512, (1 << 20) + 1)
#: Characters of a bad value that a message repeats.
_SHOWN = 60


class Anonymous(enum.Enum):
    """What an HTTP client without a token may do."""

    AUTO = "auto"
    NONE = "none"
    READ = "read"
    ALL = "all"


class NameRule(enum.Enum):
    """Which names may be created."""

    PORTABLE = "portable"
    POSIX = "posix"


class Durability(enum.Enum):
    """Whether what is acknowledged has been flushed to the disk."""

    SAFE = "safe"
    FAST = "fast"


class LogFormat(enum.Enum):
    """How a line of the log is written."""

    TEXT = "text"
    JSON = "json"


@dataclass(frozen=True, slots=True)
class PublicUrl:
    """How the world sees the HTTP side: ``https://example.org/files`` has the prefix ``/files``.

    The host is in lower case, an IPv6 address without brackets; the prefix is empty or begins with a slash
    and never ends with one.
    """

    scheme: str
    host: str
    port: int
    prefix: str = ""

    @property
    def authority(self) -> str:
        """Host and port as a Host header carries them: without the scheme's own port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORT_OF[self.scheme] else f"{host}:{self.port}"

    @property
    def origin(self) -> str:
        """The origin as a browser's Origin header spells it (RFC 6454)."""
        return f"{self.scheme}://{self.authority}"

    def __str__(self) -> str:
        return self.origin + self.prefix


@dataclass(frozen=True, slots=True)
class Mount:
    """Where an application's own request handler stands: the function of a module, at `prefix` and below.

    The prefix begins with a slash and ends with none; all three may have several parts. Raises ValueError.
    """

    prefix: str
    module: str
    function: str

    def __post_init__(self) -> None:
        if not _MOUNTED.fullmatch(self.prefix):
            raise ValueError(
                f"{shown(str(self))} needs a path like /app or /app/v1, of letters, digits and '-._~'"
            )
        for name in (self.module, self.function):
            if not all(part.isidentifier() for part in name.split(".")):
                raise ValueError(f"{shown(str(self))}: {shown(name)} is not a name of Python's")

    def __str__(self) -> str:
        return f"{self.prefix}={self.module}:{self.function}"


_PORT_OF = {"http": 80, "https": 443}
#: What may be a secret: tokens, their stored form, webhook secrets, and user and password in a URL.
_SECRET = re.compile(r"fex1[_:]|whsec_|@")
_TRUE = frozenset(("1", "true", "yes", "on"))
_FALSE = frozenset(("0", "false", "no", "off"))
_SIZE = re.compile(r"([0-9]{1,18})(?:([KMGT])(?:iB)?)?", re.IGNORECASE)
_SCALE = {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}
_MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")
_NETWORK = re.compile(r"([0-9A-Fa-f:.]{2,45})(?:/[0-9]{1,3})?")
_ENDPOINT = re.compile(r"[A-Za-z][A-Za-z0-9_-]*:.+")
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_URL = re.compile(r"(https?)://(\[[^\[\]/?#@]*\]|[^\[\]:/?#@]*)(?::([0-9]{1,5}))?(/[^?#]*)?", re.IGNORECASE)
_MOUNT = re.compile(r"([^=]+)=([^=:]+):([^=:]+)")
# What needs no percent-encoding: such a path has one spelling.
_MOUNTED = re.compile(r"(?:/(?!\.{1,2}(?:/|$))[A-Za-z0-9._~-]+)+")
_PREFIX = re.compile(r"(?:/(?!\.{1,2}(?:/|$))(?:[A-Za-z0-9._~!$&'()*+,;=:-]|%[0-9A-Fa-f]{2})+)*")


def shown(text: str) -> str:
    """`text` in quotes for a message: cut when it is long, left out when it may hold a secret."""
    if _SECRET.search(text):
        return "this value"
    return f"'{text[:_SHOWN]}…'" if len(text) > _SHOWN else f"'{text}'"


def parse_path(text: str) -> str:
    """Read the path of a file or directory of this machine; whether it exists is not asked here."""
    return text


def parse_directory(text: str) -> RelPath:
    """Read a directory below the root, ``a/b``; the root itself is refused."""
    try:
        path = RelPath.parse(text)
    except FileNameError as error:
        raise ValueError(f"{shown(text)} is not a directory below the root: {error}") from None
    if not path:
        raise ValueError(f"{shown(text)} is the root itself; leave this option out to export all of it")
    if path.is_reserved:
        raise ValueError(f"{shown(text)} is reserved for the daemon itself")
    return path


def parse_endpoint(text: str) -> str:
    """Read a Twisted server endpoint, or ``none``; only its shape is checked here."""
    if text.lower() == NO_ENDPOINT:
        return NO_ENDPOINT
    if text.isdecimal():
        raise ValueError(f"{shown(text)} is not an endpoint; write 'tcp:{text[:5]}'")
    if not _ENDPOINT.fullmatch(text):
        raise ValueError(f"{shown(text)} is not an endpoint; write one like 'tcp:9006' or 'unix:/run/x.sock'")
    return text


def parse_transfer_endpoint(text: str) -> str:
    """Read an endpoint of the transfer protocol, ``none``, or ``shared``."""
    return SHARED_ENDPOINT if text.lower() == SHARED_ENDPOINT else parse_endpoint(text)


def _whole(text: str, low: int, high: int) -> int:
    """Read a whole number in decimal digits, from `low` to `high`."""
    if not re.fullmatch(r"-?[0-9]{1,18}", text):
        raise ValueError(f"{shown(text)} is not a whole number")
    if not low <= int(text) <= high:
        raise ValueError(f"{shown(text)} is out of range ({low} to {high})")
    return int(text)


def parse_port(text: str) -> int:
    """Read a TCP port; 0 lets the system choose a free one."""
    if not re.fullmatch(r"[0-9]{1,5}", text) or int(text) > 65535:
        raise ValueError(f"{shown(text)} is not a port (0 to 65535)")
    return int(text)


def parse_count(text: str) -> int:
    """Read a number of things of which there is at least one."""
    return _whole(text, 1, 10**9)


def parse_keep(text: str) -> int:
    """Read how many old files are kept: each rotation renames them all, so the number has a bound."""
    return _whole(text, 0, 999)


def parse_size(text: str) -> int:
    """Read a size in bytes: ``65536``, ``64K`` or ``64KiB``; K, M, G, T are powers of 1024."""
    match = _SIZE.fullmatch(text)
    if not match:
        raise ValueError(f"{shown(text)} is not a size; write a number of bytes, or one like 64K, 10M, 2G")
    size = int(match[1]) << _SCALE[(match[2] or "").upper()]
    if not 1 <= size < 2**63:
        raise ValueError(f"{shown(text)} is out of range (1 byte to 8388607T)")
    return size


def parse_chunk_size(text: str) -> int:
    """Read how many bytes of content travel in one piece."""
    size = parse_size(text)
    if size not in _CHUNKS:
        raise ValueError(f"{shown(text)} is out of range (512 bytes to 1M)")
    return size


def parse_network(text: str) -> Network:
    """Read an address or a CIDR network; host bits may be set, IPv4 written as IPv6 becomes IPv4."""
    try:
        if not _NETWORK.fullmatch(text):
            raise ValueError
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        hint = "write one like 10.0.0.0/8 or ::1"
        raise ValueError(f"{shown(text)} is not an address or network; {hint}") from None
    if isinstance(network, ipaddress.IPv6Network) and network.subnet_of(_MAPPED):
        mapped = int(network.network_address) & 0xFFFF_FFFF
        return ipaddress.IPv4Network((mapped, network.prefixlen - 96))
    return network


def parse_host(text: str) -> str:
    """Read a host name or an address as a Host header names it, without a port; lower case comes out."""
    host = text.lower().removesuffix(".")
    literal = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if ":" in literal or literal.rpartition(".")[2].isdecimal():
        try:
            return str(ipaddress.ip_address(literal[:_SHOWN].replace("%", "/")))
        except ValueError:
            raise ValueError(f"{shown(text)} is not an address; write no port") from None
    if literal != host or len(host) > 253 or not all(map(_LABEL.fullmatch, host.split("."))):
        raise ValueError(f"{shown(text)} is not a host name (letters beyond ASCII in their xn-- form)")
    return host


def parse_callback_host(text: str) -> HostPort:
    """Read a host that callbacks may go to, perhaps with its only port."""
    try:
        return HostPort.parse(text)
    except ValueError as error:
        raise ValueError(f"{shown(text)} {error}") from None


def parse_url(text: str) -> PublicUrl:
    """Read the public address: http or https, host, perhaps a port and a path; nothing else."""
    match = _URL.fullmatch(text)
    if not match:
        raise ValueError(f"{shown(text)} is not a URL like https://example.org/files")
    scheme = match[1].lower()
    port = int(match[3]) if match[3] else _PORT_OF[scheme]
    prefix = (match[4] or "").rstrip("/")
    if not 1 <= port <= 65535:
        raise ValueError(f"{shown(text)} names a port that is none (1 to 65535)")
    if not _PREFIX.fullmatch(prefix):
        raise ValueError(
            f"{shown(text)} has a path that is not plain; percent-encode it, without '.' and '..'"
        )
    return PublicUrl(scheme, parse_host(match[2]), port, prefix)


def parse_handler(text: str) -> Mount:
    """Read a path of plain segments, and the module and function behind it; nothing is imported here."""
    match = _MOUNT.fullmatch(text)
    if not match:
        raise ValueError(f"{shown(text)} is not PREFIX=MODULE:FUNCTION, as in /app=shop.web:answer")
    return Mount(match[1].removesuffix("/"), match[2], match[3])


def parse_flag(text: str) -> bool:
    """Read yes or no."""
    if text.lower() in _TRUE | _FALSE:
        return text.lower() in _TRUE
    raise ValueError(f"{shown(text)} is neither true nor false (1, true, yes, on; 0, false, no, off)")


def one_of(words: type[enum.Enum]) -> Callable[[str], enum.Enum]:
    """Make the parser of a choice between the values of `words`."""

    def parse(text: str) -> enum.Enum:
        for member in words:
            if member.value == text.lower():
                return member
        raise ValueError(f"{shown(text)} is not one of {', '.join(member.value for member in words)}")

    return parse
