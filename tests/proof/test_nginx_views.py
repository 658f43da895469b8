"""A real nginx in front: it never sees one request where we see two.

Every raw request of the table goes through two servers of one nginx: one that holds bodies back and opens a
connection for each request, and one that passes everything on as it comes, over connections that it keeps.
Both write into Referer which client's connection a request came on, so a request that nginx does not know of
betrays itself in our access log by having none.
"""

from __future__ import annotations

import json
import os
import socket
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from twisted.trial.unittest import SynchronousTestCase

from tests.proof.daemon import PATIENCE, Daemon
from tests.proof.nginx import Nginx, program
from tests.raw_bodies import TABLE
from tests.raw_requests import Row, Then

#: Connections at a time, and seconds without a byte after which a client has all its answers.
LANES = 48
QUIET = 0.5

#: Whatever can be told to nginx so that it lets more through.
_SETTINGS = """
  client_max_body_size 0;
  large_client_header_buffers 8 64k;
  ignore_invalid_headers off;
  underscores_in_headers on;
  merge_slashes off;
  proxy_next_upstream off;
"""
_SERVERS = (
    """
    location / {
      proxy_pass http://daemon;
      proxy_set_header Host $http_host;
      proxy_set_header Referer $server_port-$remote_port;
    }
    """,
    """
    location / {
      proxy_pass http://kept;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host $http_host;
      proxy_set_header Referer $server_port-$remote_port;
      proxy_request_buffering off;
      proxy_buffering off;
    }
    """,
)


class View(NamedTuple):
    """One line of nginx's access log."""

    connection: str
    status: int
    sent: int
    upstream: str


def views(nginx: Nginx) -> list[View]:
    """What it has logged so far."""
    lines = (line.split(" ", 3) for line in nginx.log.splitlines())
    return [View(name, int(status), int(sent), upstream) for name, status, sent, upstream in lines]


def talk(port: int, data: bytes) -> bytes:
    """Send these bytes on a connection of their own; all that comes back."""
    received = []
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as client:
        try:
            client.sendall(data)
            # The first answer may take its time; where none can come, it is not waited for.
            client.settimeout(QUIET)
            while piece := client.recv(1 << 16):
                received.append(piece)
        except (TimeoutError, ConnectionError):
            pass
    return b"".join(received)


class ViewTests(SynchronousTestCase):
    """nginx's access log against ours."""

    def setUp(self) -> None:
        program()  # which skips the test where there is none
        root, base = Path(self.mktemp()).absolute(), Path(self.mktemp()).absolute()
        root.mkdir()
        base.mkdir()
        (root / "f").write_bytes(b"a small file")
        (root / os.fsdecode(b"\xc3\xa9")).write_bytes(b"e")
        self.daemon = Daemon(root, "--log-format", "json")
        self.daemon.__enter__()
        self.addCleanup(self.daemon.kill)
        authority = urlsplit(self.daemon.url).netloc
        self.nginx = Nginx(base, authority, _SERVERS, settings=_SETTINGS)
        self.nginx.__enter__()
        self.addCleanup(self.nginx.__exit__)

    def send(self, rows: Iterable[Row]) -> int:
        """Send every request through both servers; return how many answers came back at all."""
        jobs = [(port, data) for _, data, *_ in rows for port in self.nginx.ports]
        with ThreadPoolExecutor(LANES) as pool:
            return sum(answer.startswith(b"HTTP/1.1 ") for answer in pool.map(lambda job: talk(*job), jobs))

    def counted(self, mark: str) -> tuple[list[View], list[dict[str, Any]]]:
        """The lines of both logs so far; a last request, with a mark, tells that they are complete."""
        for port in self.nginx.ports:
            line = f"GET /-/health?{mark}-{port} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
            self.assertIn(b" 200 OK", talk(port, line.encode("ascii")))
            self.daemon.expect(rf'"event":"access".*{mark}-{port}')
        entries = map(json.loads, self.daemon.output.splitlines())
        return views(self.nginx), [entry for entry in entries if entry.get("event") == "access"]

    def assertOneView(self, views: Sequence[View], entries: Sequence[dict[str, Any]]) -> None:
        """We answered no request that nginx did not pass on, on any connection, nor more than that in all."""
        passed = Counter(view.connection for view in views if view.upstream != "-")
        answered = Counter(view.connection for view in views if view.sent or view.status == 499)
        ours = Counter(entry["referrer"] for entry in entries)
        refused = ours.pop(None, 0)
        unknown = [entry for entry in entries if entry["referrer"] is None and entry["target"] != "-"]
        self.assertEqual(unknown, [], "these came past nginx")
        more = {name: count for name, count in ours.items() if count > min(passed[name], answered[name])}
        self.assertEqual(more, {}, "more than nginx knows of on these connections")
        # What we could not read has no Referer: it must be among what nginx passed on and we did not name.
        self.assertLessEqual(refused, passed.total() - ours.total())

    def test_table(self) -> None:
        """No request of the table is one for nginx and two for us."""
        complete = [row for row in TABLE if row[3] is not Then.WAITS]
        answers = self.send(complete)
        self.assertGreater(answers, len(complete))
        views, entries = self.counted("complete")
        self.assertOneView(views, entries)
        self.assertGreater(len(entries), len(complete) // 2, "nginx let too little through")
        # Apart from the others: what nginx passes on of these may never become a request.
        self.send([row for row in TABLE if row[3] is Then.WAITS])
        late_views, late_entries = self.counted("incomplete")
        self.assertOneView(late_views[len(views) :], late_entries[len(entries) :])

    def test_control(self) -> None:
        """A request that does not pass nginx is noticed."""
        talk(int(self.daemon.url.rstrip("/").rpartition(":")[2]), TABLE[0][1])
        views, entries = self.counted("control")
        with self.assertRaises(self.failureException):
            self.assertOneView(views, entries)
