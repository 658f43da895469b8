"""Whom a reverse proxy speaks for: the address behind X-Forwarded-For, as far as proxies are trusted."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Sequence

_PORT = re.compile(r"\[([^\]]*)\](?::\d{1,5})?|([0-9.]+):\d{1,5}")


def client_of(
    peer: str | None, fields: Callable[[bytes], Sequence[bytes]], is_proxy: Callable[[str], bool]
) -> str | None:
    """The address that a request came from: the peer's, or the one that trusted proxies name.

    Each proxy appends the address of its own peer, so the list is read from its end, and what stands before
    the first address that is no trusted proxy's was written by somebody who may lie. An element that is no
    address ends the reading: the last one that was understood counts. None on a UNIX socket.
    """
    if peer is None or not is_proxy(peer):
        return peer
    client = peer
    elements = b",".join(fields(b"x-forwarded-for")).decode("latin-1").split(",")
    for element in reversed(elements):
        address = _address(element.strip())
        if address is None:
            break
        client = address
        if not is_proxy(address):
            break
    return client


def _address(text: str) -> str | None:
    """An address without its port and brackets; IPv4 written as IPv6 becomes IPv4."""
    if match := _PORT.fullmatch(text):
        text = match[1] or match[2]
    try:
        address = ipaddress.ip_address(text[:45])
    except ValueError:
        return None
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)
