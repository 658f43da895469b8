"""Whose process is at the other end of a local connection.

The daemon lets processes of its own user change things without a token. An address cannot tell them from
others, nor can a header: a reverse proxy on this machine makes the whole world come from 127.0.0.1. The
kernel can: it knows the user of every socket. Linux only; elsewhere nobody is known.
"""

from __future__ import annotations

import socket
import struct
import sys
from typing import NamedTuple

#: In place of a uid that this user namespace does not know, the kernel gives this one (`kernel.overflowuid`):
#: in a container it may be anybody's, so it identifies nobody.
NOBODY = 65534

# linux/netlink.h, struct nlmsghdr: length, type, flags, sequence, port id; and NLM_F_REQUEST
_HEADER = struct.Struct("=IHHII")
_REQUEST = 0x01
# linux/netlink.h (Python names neither): the netlink family; linux/sock_diag.h: SOCK_DIAG_BY_FAMILY
_SOCK_DIAG = 4
_BY_FAMILY = 20
# linux/inet_diag.h, struct inet_diag_req_v2: family, protocol, extensions wanted, padding, states wanted
_QUERY = struct.Struct("=BBBBI")
# linux/inet_diag.h, struct inet_diag_sockid: in network order source and destination port, source and
# destination address (IPv4 in the first four bytes) ...
_ENDS = struct.Struct("!HH16s16s")
# ... and in host order interface (0: any) and cookie (all ones: INET_DIAG_NOCOOKIE)
_ANY_SOCKET = struct.pack("=III", 0, 0xFFFF_FFFF, 0xFFFF_FFFF)
# linux/inet_diag.h, struct inet_diag_msg: family, state, timer, retransmissions, the sockid as above ...
_STATE = struct.Struct("=BBBB")
# ... and expiry, receive queue, write queue, uid, inode
_OWNER = struct.Struct("=IIIII")
_ANSWER_SIZE = _HEADER.size + _STATE.size + _ENDS.size + len(_ANY_SOCKET) + _OWNER.size

# include/net/tcp_states.h
_ESTABLISHED = 1
# An answer is some 100 bytes; attributes may follow, which are not read.
_MAX_ANSWER = 4096
_SEQUENCE = 1

# linux/socket.h, struct ucred: pid, uid, gid
_CREDENTIALS = struct.Struct("=iII")

# IPv4 written as IPv6 begins so (RFC 4291 2.5.5.2); and ::1
_MAPPED = bytes(10) + b"\xff\xff"
_LOOPBACK6 = bytes(15) + b"\x01"


class _End(NamedTuple):
    """One end of a TCP connection: 4 or 16 bytes of address; IPv4 written as IPv6 is IPv4."""

    address: bytes
    port: int


def owner_of(transport: object) -> int | None:
    """Return the uid of the process at the other end of `transport`, or None where it is not certain.

    Known are the peers of UNIX sockets (who connected, SO_PEERCRED) and of TCP over loopback, also beneath
    TLS, as long as both ends are open: a peer that has closed its end has no owner any more. The socket's own
    names count, not what ``getPeer`` says: a proxy's header may have put that there. A uid that the kernel
    has no name for here (`NOBODY`) is None.

    Takes some 20 microseconds of system calls, none of which waits. Never raises.
    """
    if sys.platform != "linux":
        return None
    sock = getattr(transport, "socket", None)
    if not isinstance(sock, socket.socket):
        return None
    try:
        uid = _unix_peer(sock) if sock.family == socket.AF_UNIX else _tcp_peer(sock)
    except (OSError, ValueError):  # not connected, no descriptors left, no such query in this kernel
        return None
    return None if uid == NOBODY else uid


def _unix_peer(sock: socket.socket) -> int:
    answer = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    uid: int = _CREDENTIALS.unpack(answer)[1]
    return uid


def _tcp_peer(sock: socket.socket) -> int | None:
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return None
    peer, local = _end(sock.getpeername()), _end(sock.getsockname())
    if not (_is_loopback(peer) and _is_loopback(local)):
        return None
    return _owner_in(_ask(peer, local), peer, local)


def _end(name: tuple[str, int] | tuple[str, int, int, int]) -> _End:
    host = name[0]
    packed = socket.inet_pton(socket.AF_INET6 if ":" in host else socket.AF_INET, host)
    return _End(packed.removeprefix(_MAPPED), name[1])


def _is_loopback(end: _End) -> bool:
    return end.address == _LOOPBACK6 or (len(end.address) == 4 and end.address[0] == 127)


def _ask(source: _End, destination: _End) -> bytes:
    """Ask the kernel for the TCP socket that connects `source` to `destination`; return its raw answer.

    sock_diag(7). The answer is there when `send` returns. A new socket for each question costs a few
    microseconds and leaves no answer behind that could be taken for the next one's.
    """
    family = socket.AF_INET if len(source.address) == 4 else socket.AF_INET6
    query = _QUERY.pack(family, socket.IPPROTO_TCP, 0, 0, 0xFFFF_FFFF)
    ends = _ENDS.pack(source.port, destination.port, source.address, destination.address)
    size = _HEADER.size + _QUERY.size + _ENDS.size + len(_ANY_SOCKET)
    header = _HEADER.pack(size, _BY_FAMILY, _REQUEST, _SEQUENCE, 0)
    kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
    with socket.socket(socket.AF_NETLINK, kind, _SOCK_DIAG) as kernel:
        kernel.connect((0, 0))  # from now on only the kernel, port id 0, can answer
        kernel.send(header + query + ends + _ANY_SOCKET)
        return kernel.recv(_MAX_ANSWER)


def _owner_in(answer: bytes, source: _End, destination: _End) -> int | None:
    """The uid in the kernel's answer, if it is about this very connection and somebody holds it open.

    A closed socket shows uid 0 and inode 0; without a match the kernel may answer with a listening socket.
    """
    if len(answer) < _ANSWER_SIZE:
        return None
    _, kind, _, sequence, _ = _HEADER.unpack_from(answer)
    family, state, _, _ = _STATE.unpack_from(answer, _HEADER.size)
    sport, dport, src, dst = _ENDS.unpack_from(answer, _HEADER.size + _STATE.size)
    *_, uid, inode = _OWNER.unpack_from(answer, _ANSWER_SIZE - _OWNER.size)
    echoed = _End(_address(family, src), sport), _End(_address(family, dst), dport)
    matches = kind == _BY_FAMILY and sequence == _SEQUENCE and echoed == (source, destination)
    return uid if matches and state == _ESTABLISHED and inode else None


def _address(family: int, field: bytes) -> bytes:
    """An address as `_End` has it; the peer of an IPv4 connection may hold it as IPv6."""
    return field[:4] if family == socket.AF_INET else field.removeprefix(_MAPPED)
