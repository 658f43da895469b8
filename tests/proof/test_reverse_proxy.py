"""A real nginx in front of the daemon on the same machine: what the world may do through it.

To the daemon every request of such a proxy comes from 127.0.0.1. Whose process sends it is what the kernel
says, so here the daemon, its proxy and its clients are processes of different users.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from html import unescape
from pathlib import Path
from urllib.parse import unquote, urlsplit

from tests.proof.asking import Answer, ask
from tests.proof.commands import DaemonCase, run
from tests.proof.counts import SOAK
from tests.proof.daemon import PATIENCE, Daemon
from tests.proof.nginx import Nginx, program
from tests.proof.users import OTHER, as_user, need_other_users, python_as_user

#: Requests of another user's that are closed as soon as they are sent.
HASTY = 2000 if SOAK else 100
#: What proxies add, each of which says that somebody else asks.
FORWARDING = (
    "X-Forwarded-For $proxy_add_x_forwarded_for",
    "X-Forwarded-Host $host",
    "X-Forwarded-Proto $scheme",
    "X-Real-IP $remote_addr",
    "Forwarded for=$remote_addr",
    "Via '1.1 nginx'",
)
#: Method and target of everything that changes something.
CHANGES = (
    ("GET", "/delete?dir=d&name=f"),
    ("POST", "/delete?dir=d&name=f"),
    ("DELETE", "/delete?dir=d&name=f"),
    ("GET", "/delete?dir=d&prefix=*&suffix=*"),
    ("GET", "/tar?dir=d&name=f&host=127.0.0.1&port=9&path=/"),
    ("GET", "/stop"),
    ("POST", "/stop"),
)
#: Of whatever is only read.
READS = ("/d/f", "/get?dir=d&name=f", "/list?dir=d", "/", "/d/?archive=tar", "/?json")

#: Sends each request and closes at once, in each of the ways in which a socket can be closed.
_HASTY = """
port, count = map(int, sys.argv[1:])
for number in range(count):
    end = socket.socket()
    end.connect(("127.0.0.1", port))
    end.send(b"GET /delete?dir=d&name=f HTTP/1.1\\r\\nHost: localhost\\r\\nReferer: hasty\\r\\n\\r\\n")
    if number % 3 == 1:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    elif number % 3 == 2:
        end.shutdown(socket.SHUT_WR)
    end.close()
"""


class ProxyCase(DaemonCase):
    """Has a root that every user of the machine can read, and a place for nginx."""

    def setUp(self) -> None:
        super().setUp()
        # Not in the working directory, which may be closed to others.
        short = tempfile.mkdtemp(prefix="fileexport-")
        self.addCleanup(shutil.rmtree, short)
        os.chmod(short, 0o755)
        self.root = Path(short, "root")
        (self.root / "d" / "e").mkdir(parents=True)
        self.file = self.root / "d" / "f"
        self.file.write_bytes(b"content")
        self.places = self.daemons = 0

    def daemon(self, *options: str) -> Daemon:
        """A daemon of this process's user, until the test is over."""
        self.daemons += 1
        # A state for each: two daemons do not share one.
        daemon = Daemon(self.root, "--state", str(self.base / f"state-{self.daemons}"), *options)
        daemon.__enter__()
        self.addCleanup(daemon.kill)
        return daemon

    def nginx(self, daemon: Daemon, servers: Sequence[str], user: int | None) -> Sequence[int]:
        """The ports of an nginx in front of it, until the test is over."""
        self.places += 1
        base = self.root.parent / f"nginx-{self.places}"
        base.mkdir()
        nginx = Nginx(base, urlsplit(daemon.url).netloc, servers, user=user)
        nginx.__enter__()
        self.addCleanup(nginx.__exit__)
        return nginx.ports

    @property
    def token(self) -> dict[str, str]:
        """The header that lets one do everything at the daemon that was started last."""
        text = (self.base / f"state-{self.daemons}" / "token").read_text()
        return {"Authorization": f"Bearer {text.split()[0]}"}


def servers_of(daemon: Daemon) -> tuple[str, ...]:
    """nginx as a manual's first line has it; with kept connections; with each of the forwarding headers."""
    bare = f"location / {{ proxy_pass {daemon.url.rstrip('/')};"
    kept = 'proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $http_host;'
    headers = (f"{bare} proxy_set_header {header}; }}" for header in FORWARDING)
    return f"{bare} }}", f"location / {{ proxy_pass http://kept; {kept} }}", *headers


#: How many of `servers_of` say nothing of whom they speak for.
SILENT = 2


class WithoutTokenTests(ProxyCase):
    """What anybody may do through a proxy, who has no token."""

    def setUp(self) -> None:
        super().setUp()
        program()  # which skips the test where there is none
        need_other_users()

    def ports(self, user: int | None, *options: str) -> Sequence[int]:
        """The ports of an nginx of that user's in front of a daemon with these options."""
        daemon = self.daemon(*options)
        return self.nginx(daemon, servers_of(daemon), user)

    def assert_unchanged(self, port: int) -> None:
        """Every change is refused, and nothing has changed."""
        for method, target in CHANGES:
            self.assertIn(ask(port, target, method).status, (401, 403), (method, target))
        self.assertEqual(self.file.read_bytes(), b"content")
        self.assertEqual(ask(port, "/-/health").status, 200)

    def assert_reads(self, port: int, status: int) -> None:
        """Everything that is only read has this status."""
        self.assertEqual({ask(port, target).status for target in READS}, {status})

    def test_of_another_user(self) -> None:
        """nginx of another user may read where it says nothing of its clients; nothing where it does."""
        for place, port in enumerate(self.ports(OTHER)):
            self.assert_unchanged(port)
            self.assert_reads(port, 200 if place < SILENT else 401)

    def test_trusted(self) -> None:
        """Nobody behind a trusted proxy is local, whoever runs it and whatever it says."""
        for user in (OTHER, None):
            for port in self.ports(user, "--trusted-proxy", "127.0.0.0/8"):
                self.assert_unchanged(port)
                self.assert_reads(port, 401)

    def test_of_the_same_user(self) -> None:
        """nginx of the daemon's own user may do nothing where it says that it speaks for others."""
        for port in self.ports(None)[SILENT:]:
            self.assert_unchanged(port)
            self.assert_reads(port, 401)

    def test_control(self) -> None:
        """What cannot be told: a proxy of the daemon's own user that is silent and not named as trusted."""
        for port in self.ports(None)[:SILENT]:
            self.assert_reads(port, 200)
            self.assertEqual(ask(port, "/delete?dir=d&name=f").body, b"deleted 1 file")
            self.file.write_bytes(b"content")

    def test_anonymous(self) -> None:
        """`--anonymous none` closes reading too, and `read` opens it, for every proxy; neither more."""
        for rule, status in (("none", 401), ("read", 200)):
            for user in (OTHER, None):
                for port in self.ports(user, "--anonymous", rule):
                    self.assert_unchanged(port)
                    self.assert_reads(port, status)

    def test_lies(self) -> None:
        """What a client writes into the headers itself does not make it local, nor more."""
        lies = (
            {"X-Forwarded-For": "127.0.0.1"},
            {"X-Real-IP": "127.0.0.1"},
            {"Forwarded": "for=127.0.0.1"},
            {"Connection": "close, X-Forwarded-For, X-Real-IP, Forwarded, Via"},
        )
        for options in ((), ("--trusted-proxy", "127.0.0.0/8")):
            for port in self.ports(OTHER, *options):
                for fields in lies:
                    answer = ask(port, "/delete?dir=d&name=f", fields=fields)
                    self.assertIn(answer.status, (401, 403), (options, fields))
        self.assertTrue(self.file.exists())


class WithTokenTests(ProxyCase):
    """What the holder of a token does through a proxy."""

    def setUp(self) -> None:
        super().setUp()
        program()

    def test_token(self) -> None:
        """With a token everything works, through every nginx, with and without --trusted-proxy."""
        for options in ((), ("--trusted-proxy", "127.0.0.1")):
            daemon = self.daemon(*options)
            for port in self.nginx(daemon, servers_of(daemon), None):
                for target in READS:
                    self.assertEqual(ask(port, target, fields=self.token).status, 200, target)
                answer = ask(port, "/delete?dir=d&name=f", "POST", self.token)
                self.assertEqual(answer.body, b"deleted 1 file")
                self.file.write_bytes(b"content")

    def test_address(self) -> None:
        """The log has the address that a trusted proxy names, and its own where it is not trusted."""
        client = {"X-Forwarded-For": "198.51.100.1, 203.0.113.9"}
        for options, shown in (((), r"127\.0\.0\.1"), (("--trusted-proxy", "127.0.0.1"), r"203\.0\.113\.9")):
            daemon = self.daemon(*options)
            ports = self.nginx(daemon, servers_of(daemon), None)
            self.assertEqual(ask(ports[SILENT], "/d/f", fields=client | self.token).status, 200)
            daemon.expect(rf'^{shown} - generated .*"GET /d/f HTTP')

    def test_filter(self) -> None:
        """--address-filter decides about the address that a trusted proxy names."""
        daemon = self.daemon("--trusted-proxy", "127.0.0.1", "--address-filter", "203.0.113.0/24")
        port = self.nginx(daemon, servers_of(daemon), None)[SILENT]
        for address, status in (("203.0.113.9", 200), ("198.51.100.1", 403)):
            fields = {"X-Forwarded-For": address} | self.token
            self.assertEqual(ask(port, "/d/f", fields=fields).status, status)


class EventTests(ProxyCase):
    """News of jobs through a proxy, which gathers what it passes on unless it is asked not to."""

    def setUp(self) -> None:
        super().setUp()
        program()
        daemon = self.daemon()
        bare, kept, *_ = servers_of(daemon)
        self.ports = self.nginx(daemon, [f"proxy_buffering on; {server}" for server in (bare, kept)], None)

    @contextmanager
    def asked(
        self, port: int, method: str, target: str, body: bytes | None = None
    ) -> Iterator[http.client.HTTPResponse]:
        """An answer of which the header has come."""
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)) as connection:
            fields = self.token | {"Content-Type": "application/json"}
            connection.request(method, target, body, fields)
            with connection.getresponse() as response:
                yield response

    def test_at_once(self) -> None:
        """Each event comes when it happens: the stream has not ended, and no buffer is full."""
        for port in self.ports:
            with self.asked(port, "GET", "/-/events") as stream:
                self.assertEqual((stream.status, stream.readline()), (200, b"retry: 2000\n"))
                with self.asked(port, "POST", "/-/jobs", b'{"path": "/d/f"}') as made:
                    job = json.loads(made.read())["id"]
                state = ""
                while state != "done":
                    line = stream.readline()
                    self.assertNotEqual(line, b"", "the stream ended")
                    if line.startswith(b"data: "):
                        news = json.loads(line.removeprefix(b"data: "))
                        self.assertEqual(news["id"], job)
                        state = news["state"]


class PublicUrlTests(ProxyCase):
    """The daemon below a path of somebody's site."""

    HOST = "files.example"

    def setUp(self) -> None:
        super().setUp()
        program()
        (self.root / "d" / "ein Wort & mehr.txt").write_bytes(b"words")
        daemon = self.daemon("--public-url", f"https://{self.HOST}/export", "--trusted-proxy", "127.0.0.1")
        site = f"""
        location /export/ {{
          proxy_pass {daemon.url};
          proxy_set_header Host $http_host;
          proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
        }}
        """
        (self.port,) = self.nginx(daemon, [site], None)

    def ask(self, target: str, method: str = "GET", **fields: str) -> Answer:
        """What the site answers to the holder of a token."""
        return ask(self.port, target, method, {"Host": self.HOST} | self.token | fields)

    def test_links(self) -> None:
        """Every link of every page leads below the prefix and, through nginx, to something."""
        seen, left = set(), ["/export/"]
        while left:
            target = left.pop()
            seen.add(target)
            answer = self.ask(target)
            self.assertEqual(answer.status, 200, target)
            if not answer.fields["Content-Type"].startswith("text/html"):
                continue
            links = re.findall(r'(?:href|src)="([^"#]*)', answer.body.decode())
            self.assertGreater(len(links), 2)
            for link in map(unescape, links):
                self.assertTrue(link.startswith("/export/"), (target, link))
                if link not in seen:
                    left.append(link)
        self.assertLessEqual({"/export/d/f", "/export/d/ein Wort & mehr.txt"}, set(map(unquote, seen)))

    def test_json(self) -> None:
        """The addresses of /list begin with the prefix and lead to the files."""
        answer = self.ask("/export/list?dir=d&details=1")
        addresses = [entry["url"] for entry in json.loads(answer.body)]
        self.assertEqual([self.ask(address).body for address in addresses], [b"words", b"content"])

    def test_redirect(self) -> None:
        """A directory without its slash is redirected below the prefix."""
        answer = self.ask("/export/d")
        self.assertEqual((answer.status, answer.fields["Location"]), (301, "/export/d/"))

    def test_host(self) -> None:
        """The site's own name is let in, and no other name."""
        self.assertEqual(self.ask("/export/d/f").body, b"content")
        self.assertEqual(self.ask("/export/d/f", Host="rebound.example").status, 403)

    def test_origin(self) -> None:
        """A page of the site may change things with a token, and a page of another site may not."""
        target = "/export/delete?dir=d&name=f"
        self.assertEqual(self.ask(target, "POST", Origin="https://other.example").status, 403)
        self.assertTrue(self.file.exists())
        self.assertEqual(self.ask(target, "POST", Origin=f"https://{self.HOST}").status, 200)
        self.assertFalse(self.file.exists())


class DirectTests(ProxyCase):
    """No proxy: processes of this machine."""

    def wget(self, daemon: Daemon, target: str, user: int | None = None) -> tuple[int, bytes]:
        """Exit status and output of wget, run by that user or by the daemon's own."""
        program = shutil.which("wget")
        assert program is not None
        before = as_user(user) if user is not None else ()
        words = ("--no-config", "--no-hsts", "--no-proxy", "--tries=1", "-nv", "-O-")
        done = run(*before, program, *words, daemon.url + target, cwd=self.root)
        return done.returncode, done.stdout

    def test_own_user(self) -> None:
        """wget of the daemon's user reads and changes without a token."""
        daemon = self.daemon()
        self.assertEqual(self.wget(daemon, "get?dir=d&name=f"), (0, b"content"))
        self.assertEqual(self.wget(daemon, "delete?dir=d&name=f"), (0, b"deleted 1 file"))
        self.assertFalse(self.file.exists())
        self.assertEqual(self.wget(daemon, "stop"), (0, b"stopping"))
        self.assertEqual(daemon.wait(), 0)

    def test_another_user(self) -> None:
        """wget of another user reads, and changes nothing; where the root is closed it does not even read."""
        need_other_users()
        daemon = self.daemon()
        denied = 6  # wget's status for 401
        self.assertEqual(self.wget(daemon, "get?dir=d&name=f", OTHER), (0, b"content"))
        for target in ("delete?dir=d&name=f", "stop", "tar?dir=d&name=f&host=127.0.0.1&port=9&path=/"):
            self.assertEqual(self.wget(daemon, target, OTHER), (denied, b""))
        self.assertTrue(self.file.exists())
        self.root.chmod(0o700)
        self.assertEqual(self.wget(daemon, "get?dir=d&name=f", OTHER), (denied, b""))
        self.assertEqual(self.wget(daemon, "get?dir=d&name=f"), (0, b"content"))

    def test_hasty(self) -> None:
        """Another user's requests change nothing when their sockets are closed before anybody asks for them.

        Some kernels say that such a socket is of user 0, so the daemon is of user 0.
        """
        need_other_users()
        daemon = self.daemon("--log-format", "json")
        port = str(urlsplit(daemon.url).port)
        done = run(*python_as_user(OTHER, _HASTY), port, str(HASTY))
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(ask(int(port), "/-/health?after").status, 200)
        daemon.expect("after")
        statuses = {entry["status"] for entry in self.hasty(daemon)}
        self.assertLessEqual(statuses, {401})
        self.assertGreater(len(self.hasty(daemon)), HASTY // 4, "too few arrived to prove anything")
        self.assertEqual(self.file.read_bytes(), b"content")

    def hasty(self, daemon: Daemon) -> list[dict[str, object]]:
        """What the access log says of these requests."""
        entries = (json.loads(line) for line in daemon.output.splitlines())
        return [entry for entry in entries if entry.get("referrer") == "hasty"]
