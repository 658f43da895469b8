"""Admission: which connections come in at all, before a protocol sees a byte of them.

One `Gate` counts for both doors and all listeners; `GatedFactory` stands at each listening socket, outside
TLS, and gives every place back when its connection ends.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.address import IPv4Address as TCP4Address
from twisted.internet.address import IPv6Address as TCP6Address
from twisted.internet.interfaces import IAddress, IProtocol, IProtocolFactory, ITransport
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from zope.interface import directlyProvides, implementer, providedBy

from fileexport.addresses import Address, Network, read_address

#: Connections at a time, and from one address: what the limits of the manual promises.
MAX_CONCURRENT = 10_000
PER_ADDRESS = 1024


def ip_of(address: IAddress) -> Address | None:
    """The IP address in Twisted's `address`, IPv4 as IPv4; None where there is none."""
    return read_address(address.host) if isinstance(address, TCP4Address | TCP6Address) else None


class Slot:
    """The place of one admitted connection; `release` gives it back."""

    __slots__ = ("_release",)

    def __init__(self, release: Callable[[], None]) -> None:
        self._release: Callable[[], None] | None = release

    def release(self) -> None:
        """Give the place back. Calling it again does nothing."""
        release, self._release = self._release, None
        if release is not None:
            release()


class Gate:
    """Decides who may come in, and counts who is in.

    - `filters`: networks whose addresses may come in; empty: all. A UNIX socket has no address and passes.
    - `trusted`: networks of reverse proxies, which neither filters nor the limit for an address hold back:
      those count for the clients that they speak for (`enter`).
    - `max_concurrent`: connections at a time, of all kinds together.
    - `per_address`: connections at a time from one IP address; UNIX sockets are not bound by it.
    - `max_total`: connections in the gate's whole life, at least 1, refused ones not counted; None: no end.
    - `on_full` is called when the last of `max_total` comes in: stop listening. Further ones are refused.
    - `on_exhausted` is called once, when all of `max_total` have come in and gone: the work is done.
    """

    def __init__(
        self,
        *,
        filters: Sequence[Network] = (),
        trusted: Sequence[Network] = (),
        max_concurrent: int = MAX_CONCURRENT,
        per_address: int = PER_ADDRESS,
        max_total: int | None = None,
        on_full: Callable[[], None] = lambda: None,
        on_exhausted: Callable[[], None],
    ) -> None:
        self._filters = tuple(filters)
        self._trusted = tuple(trusted)
        self._max_concurrent = max_concurrent
        self._per_address = per_address
        self._left = max_total
        self._on_full = on_full
        self._on_exhausted = on_exhausted
        self._open = 0
        self._accepted = 0
        self._by_address: Counter[Address] = Counter()

    @property
    def open(self) -> int:
        """How many connections are in now."""
        return self._open

    @property
    def accepted(self) -> int:
        """How many connections have come in so far."""
        return self._accepted

    def admit(self, address: IAddress) -> Slot | None:
        """Give the connection from `address` a place, or None: it is to be closed at once."""
        ip = ip_of(address)
        if self._left == 0 or self._open >= self._max_concurrent or not self._welcome(ip):
            return None
        self._open += 1
        self._accepted += 1
        if ip is not None:
            self._by_address[ip] += 1
        if self._left is not None:
            self._left -= 1
            if self._left == 0:
                self._on_full()
        return Slot(lambda: self._leave(ip))

    def is_trusted(self, ip: Address) -> bool:
        """Whether this is the address of a proxy that speaks for others."""
        return any(ip in network for network in self._trusted)

    def enter(self, ip: Address) -> Slot | None:
        """Give one request of a client behind a trusted proxy a place, or None: it is to be refused.

        Filters and the limit for an address count for it as if it had come by itself.
        """
        if not self._welcome(ip):
            return None
        self._by_address[ip] += 1
        return Slot(lambda: self._leave_address(ip))

    def _welcome(self, ip: Address | None) -> bool:
        if ip is None or self.is_trusted(ip):
            return True
        if self._filters and not any(ip in network for network in self._filters):
            return False
        return self._by_address[ip] < self._per_address

    def _leave_address(self, ip: Address) -> None:
        self._by_address[ip] -= 1
        if not self._by_address[ip]:
            del self._by_address[ip]  # addresses come and go without end; only those present are kept

    def _leave(self, ip: Address | None) -> None:
        self._open -= 1
        if ip is not None:
            self._leave_address(ip)
        if self._left == 0 and self._open == 0:
            self._on_exhausted()


@implementer(IProtocolFactory)
class GatedFactory:
    """A factory whose connections pass `gate` first; the protocols are those of `inner`.

    A refused connection gets no protocol, and Twisted closes it at once. An admitted one keeps its place
    until its ``connectionLost``; if `inner` builds no protocol or raises, the place is free again at once.
    """

    def __init__(self, inner: IProtocolFactory, gate: Gate) -> None:
        self._inner = inner
        self._gate = gate

    def doStart(self) -> None:
        """A listening socket was opened."""
        self._inner.doStart()

    def doStop(self) -> None:
        """A listening socket was closed."""
        self._inner.doStop()

    def buildProtocol(self, addr: IAddress) -> IProtocol | None:
        """Build `inner`'s protocol, or None where the gate refuses; raises what `inner` raises."""
        slot = self._gate.admit(addr)
        if slot is None:
            return None
        try:
            protocol = self._inner.buildProtocol(addr)
        except BaseException:
            slot.release()
            raise
        if protocol is None:
            slot.release()
            return None
        return _Gated(protocol, slot)


@implementer(IProtocol)
class _Gated:
    """Stands for the protocol `inner` at the transport, only to learn when the connection is gone.

    The transport is not wrapped: `inner` is connected to the real one, so that its class can be asked
    (`disk.sender` writes straight to the socket of plain TCP only). Nor is `inner` changed: setting
    ``connectionLost`` on the instance fails for protocols that are proxies themselves, as that of
    `twisted.web` is. What is left is an object between the two that claims every interface of `inner`'s and
    hands everything on; half-closing, the end of a TLS handshake and the log prefix go by ``__getattr__``.

    It holds as long as nobody assigns to ``transport.protocol``: a protocol that becomes another one does
    so inside itself.
    """

    def __init__(self, inner: IProtocol, slot: Slot) -> None:
        self._inner = inner
        self._slot = slot
        directlyProvides(self, providedBy(inner))

    def makeConnection(self, transport: ITransport) -> None:
        try:
            self._inner.makeConnection(transport)
        except BaseException:
            # Twisted logs this and leaves the socket open, with nobody to end it.
            abort = getattr(transport, "abortConnection", transport.loseConnection)
            abort()
            raise

    def connectionMade(self) -> None:
        self._inner.connectionMade()

    def dataReceived(self, data: bytes) -> None:
        self._inner.dataReceived(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        try:
            self._inner.connectionLost(reason)
        finally:
            self._slot.release()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)
