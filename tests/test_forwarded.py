"""Clients behind reverse proxies."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from fileexport.web.forwarded import client_of
from tests.http_client import HttpCase

PROXIES = ("127.0.0.1", "10.0.0.1", "fd00::1")


class ClientTests(SynchronousTestCase):
    """Which address counts."""

    def client(self, peer: str | None, *lines: bytes) -> str | None:
        """The client of a request with these X-Forwarded-For lines."""
        fields = {b"x-forwarded-for": list(lines)}
        return client_of(peer, lambda name: fields.get(name, []), lambda host: host in PROXIES)

    def test_table(self) -> None:
        """The last address that is no trusted proxy's counts; what stands before it may be a lie."""
        for peer, lines, client in (
            ("192.0.2.9", [b"198.51.100.1"], "192.0.2.9"),
            ("127.0.0.1", [], "127.0.0.1"),
            ("127.0.0.1", [b"198.51.100.1"], "198.51.100.1"),
            ("127.0.0.1", [b"198.51.100.1, 203.0.113.5"], "203.0.113.5"),
            ("127.0.0.1", [b"198.51.100.1", b"203.0.113.5"], "203.0.113.5"),
            ("127.0.0.1", [b"198.51.100.1, 10.0.0.1"], "198.51.100.1"),
            ("127.0.0.1", [b"10.0.0.1, 10.0.0.1"], "10.0.0.1"),
            ("127.0.0.1", [b"nonsense"], "127.0.0.1"),
            ("127.0.0.1", [b"198.51.100.1, nonsense, 10.0.0.1"], "10.0.0.1"),
            ("127.0.0.1", [b"198.51.100.1:4711"], "198.51.100.1"),
            ("127.0.0.1", [b"[2001:db8::1]:443, fd00::1"], "2001:db8::1"),
            ("127.0.0.1", [b"::ffff:198.51.100.1"], "198.51.100.1"),
            ("127.0.0.1", [b" , "], "127.0.0.1"),
            ("127.0.0.1", [b"1" * 9000], "127.0.0.1"),
            (None, [b"198.51.100.1"], None),
        ):
            self.assertEqual(self.client(peer, *lines), client, lines)


class DoorTests(HttpCase):
    """What the door makes of it."""

    def test_a_banned_client(self) -> None:
        """A client whose address is not let in is refused also behind a proxy, and its connection ends."""
        web = self.harness(proxies=["127.0.0.1"], banned=["198.51.100.1"])
        answer = web.get("/-/health", {"X-Forwarded-For": "198.51.100.1"})
        self.assertEqual((answer.status, answer.field("Connection")), (403, "close"))
        self.assertEqual(web.get("/-/health", {"X-Forwarded-For": "198.51.100.2"}).status, 200)

    def test_its_place_is_given_back(self) -> None:
        """A request of such a client is counted while it is under way, and no longer."""
        web = self.harness(proxies=["127.0.0.1"])
        self.write("large", b"x" * 3_000_000)
        connection = web.connect()
        head = b"GET /large HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: 198.51.100.1\r\n"
        connection.send(head + b"Authorization: Bearer x\r\n\r\n")
        self.assertEqual(web.inside["198.51.100.1"], 1)
        connection.lose()
        self.assertEqual(web.inside["198.51.100.1"], 0)

    def test_who_is_no_proxy_speaks_for_itself(self) -> None:
        """The header of anybody else names nobody."""
        web = self.harness(banned=["198.51.100.1"])
        self.assertEqual(web.get("/-/health", {"X-Forwarded-For": "198.51.100.1"}).status, 200)
