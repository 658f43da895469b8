"""A real nginx in front: it never sees one request where we see two.

Every raw request of the table goes through two servers of one nginx: one that holds bodies back and opens a
connection for each request, and one that passes everything on as it comes, over connections that it keeps.
Both write into Referer which client's connection a request came on, so a request that nginx does not know of
betrays itself in our access log by having none.
"""

from __future__ import annotations

import json
import os
import pwd
import shutil
import socket
import subprocess
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from tests.proof.daemon import PATIENCE, Daemon
from tests.raw_bodies import TABLE
from tests.raw_requests import Row, Then

#: Connections at a time, and seconds without a byte after which a client has all its answers.
LANES = 48
QUIET = 0.5

_CONFIG = """
daemon off;
user %(user)s;
worker_processes 1;
pid %(base)s/pid;
events { worker_connections 1024; }
http {
  log_format views '$server_port-$remote_port $status $bytes_sent $upstream_addr';
  access_log %(base)s/access.log views;
  client_body_temp_path %(base)s/body;
  proxy_temp_path %(base)s/proxy;
  fastcgi_temp_path %(base)s/fastcgi;
  uwsgi_temp_path %(base)s/uwsgi;
  scgi_temp_path %(base)s/scgi;
  # Whatever can be told to nginx so that it lets more through.
  client_max_body_size 0;
  large_client_header_buffers 8 64k;
  ignore_invalid_headers off;
  underscores_in_headers on;
  merge_slashes off;
  proxy_next_upstream off;
  upstream kept { server %(daemon)s; keepalive 16; }
  server {
    listen %(first)s;
    location / {
      proxy_pass http://%(daemon)s;
      proxy_set_header Host $http_host;
      proxy_set_header Referer $server_port-$remote_port;
    }
  }
  server {
    listen %(second)s;
    location / {
      proxy_pass http://kept;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host $http_host;
      proxy_set_header Referer $server_port-$remote_port;
      proxy_request_buffering off;
      proxy_buffering off;
    }
  }
}
"""


class View(NamedTuple):
    """One line of nginx's access log."""

    connection: str
    status: int
    sent: int
    upstream: str


class Nginx:
    """An nginx in front of `daemon`, for the time of a `with` block; `ports` are those of its two servers.

    It gets its sockets from us, listening already, so that nobody has to wait for its start.
    """

    def __init__(self, program: str, base: Path, daemon: str) -> None:
        self._program = program
        self._base = base
        self._daemon = daemon
        self.ports: Sequence[int] = ()

    def __enter__(self) -> Nginx:
        sockets = [socket.create_server(("127.0.0.1", 0), backlog=LANES * 2) for _ in range(2)]
        self.ports = [made.getsockname()[1] for made in sockets]
        first, second = (f"127.0.0.1:{port}" for port in self.ports)
        user = pwd.getpwuid(os.geteuid()).pw_name
        places = dict(base=self._base, user=user, daemon=self._daemon, first=first, second=second)
        (self._base / "nginx.conf").write_text(_CONFIG % places)
        numbers = [made.fileno() for made in sockets]
        arguments = ("-p", str(self._base), "-e", "error.log", "-c", str(self._base / "nginx.conf"))
        self._process = subprocess.Popen(
            (self._program, *arguments),
            env={**os.environ, "NGINX": "".join(f"{number};" for number in numbers)},
            pass_fds=numbers,
            stdin=subprocess.DEVNULL,
        )
        for made in sockets:
            made.close()
        return self

    def __exit__(self, *_: object) -> None:
        # Its worker ends with it; killed outright, it would leave that behind.
        self._process.terminate()
        self._process.wait(PATIENCE)

    def views(self) -> list[View]:
        """What it has logged so far."""
        lines = (line.split(" ", 3) for line in (self._base / "access.log").read_text().splitlines())
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
        program = shutil.which("nginx")
        if program is None:
            raise SkipTest("nginx is not installed: nothing is proven about what it sees")
        root, base = Path(self.mktemp()).absolute(), Path(self.mktemp()).absolute()
        root.mkdir()
        base.mkdir()
        (root / "f").write_bytes(b"a small file")
        (root / os.fsdecode(b"\xc3\xa9")).write_bytes(b"e")
        self.daemon = Daemon(root, "--log-format", "json")
        self.daemon.__enter__()
        self.addCleanup(self.daemon.kill)
        self.nginx = Nginx(program, base, self.daemon.url.removeprefix("http://").rstrip("/"))
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
        return self.nginx.views(), [entry for entry in entries if entry.get("event") == "access"]

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
