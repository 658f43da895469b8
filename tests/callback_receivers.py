"""Names and receivers for the tests of callbacks, in memory or on a socket."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IAddress, IHostnameResolver, IHostResolution, IResolutionReceiver
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from zope.interface import implementer


@implementer(IHostnameResolver)
class Names:
    """A resolver that answers from a table; a name that is not in it is not answered until `answer`."""

    def __init__(self, **table: Sequence[str]) -> None:
        self.table = table
        self.open: list[IResolutionReceiver] = []

    def resolveHostName(
        self,
        resolutionReceiver: IResolutionReceiver,
        hostName: str,
        portNumber: int = 0,
        addressTypes: Sequence[type[IAddress]] | None = None,
        transportSemantics: str = "TCP",
    ) -> IHostResolution:
        self.open.append(resolutionReceiver)
        if hostName in self.table:
            self.answer(*self.table[hostName])
        return Resolution()

    def answer(self, *addresses: str) -> None:
        """Answer the oldest open question."""
        receiver = self.open.pop(0)
        for text in addresses:
            kind = IPv6Address if ":" in text else IPv4Address
            receiver.addressResolved(kind("TCP", text, 0))
        receiver.resolutionComplete()


@implementer(IHostResolution)
class Resolution:
    """A question to `Names`."""

    name = ""

    def cancel(self) -> None:
        """It cannot be called back."""


class Receiver(Protocol):
    """The other side: keeps what it was sent, and answers with the pieces that it was given."""

    def __init__(self, *pieces: bytes, close: bool = False) -> None:
        self.pieces = pieces
        self.close = close
        self.request = b""
        self.lost = 0

    def dataReceived(self, data: bytes) -> None:
        answered = b"\r\n\r\n" in self.request
        self.request += data
        if b"\r\n\r\n" in self.request and not answered:
            for piece in self.pieces:
                self.say(piece)
            if self.close:
                self.hang_up()

    def say(self, data: bytes) -> None:
        """Send something."""
        assert self.transport is not None
        self.transport.write(data)

    def hang_up(self) -> None:
        """Close the connection."""
        assert self.transport is not None
        self.transport.loseConnection()

    def connectionLost(self, reason: Failure | None = None) -> None:
        self.lost += 1
