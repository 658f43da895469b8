"""A real nginx in front of the daemon."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path

from twisted.trial.unittest import SkipTest

from tests.proof.daemon import PATIENCE
from tests.proof.users import as_user

#: Connections that may wait for it.
BACKLOG = 128

_CONFIG = """
daemon off;
%(user)s
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
  upstream daemon { server %(daemon)s; }
  upstream kept { server %(daemon)s; keepalive 16; }
  %(settings)s
  %(servers)s
}
"""


class Nginx:
    """An nginx in front of the daemon at `daemon` (host:port), for the time of a `with` block.

    `servers` are the contents of its server blocks, without their listen; `ports` are where they will listen,
    by TLS where there is a certificate. `daemon` may be set later than these, before the block.
    Upstreams are `daemon`, and `kept`, whose connections are used again. `settings` stands in the http block.
    It runs as this process's user, or as `user`. Its files lie in `base`, a directory.

    It gets its sockets from us, listening already, so that nobody has to wait for its start.
    """

    def __init__(
        self, base: Path, daemon: str, servers: Sequence[str], *, settings: str = "", user: int | None = None
    ) -> None:
        self._program = program()
        self._base = base
        self.daemon = daemon
        self._servers = servers
        self._settings = settings
        self._user = user
        self._sockets = [socket.create_server(("127.0.0.1", 0), backlog=BACKLOG) for _ in servers]
        self.ports: Sequence[int] = [made.getsockname()[1] for made in self._sockets]

    def __enter__(self) -> Nginx:
        config = self._base / "nginx.conf"
        config.write_text(self._config())
        if self._user is not None:
            os.chown(self._base, self._user, self._user)
        before = as_user(self._user) if self._user is not None else ()
        numbers = [made.fileno() for made in self._sockets]
        self._process = subprocess.Popen(
            (*before, self._program, "-p", str(self._base), "-e", "error.log", "-c", str(config)),
            env={**os.environ, "NGINX": "".join(f"{number};" for number in numbers)},
            pass_fds=numbers,
            stdin=subprocess.DEVNULL,
        )
        for made in self._sockets:
            made.close()
        return self

    def __exit__(self, *_: object) -> None:
        # Its worker ends with it; killed outright, it would leave that behind.
        self._process.terminate()
        self._process.wait(PATIENCE)

    @property
    def log(self) -> str:
        """What its access log holds so far."""
        return (self._base / "access.log").read_text()

    def _config(self) -> str:
        servers = "".join(
            f"server {{ listen 127.0.0.1:{port}{_tls(content)}; {content} }}\n"
            for port, content in zip(self.ports, self._servers, strict=True)
        )
        # Only root's nginx changes its user; another one would warn of the line.
        root = self._user is None and os.geteuid() == 0
        user = f"user {pwd.getpwuid(0).pw_name};" if root else ""
        places = dict(base=self._base, user=user, daemon=self.daemon)
        return _CONFIG % (places | dict(settings=self._settings, servers=servers))


def _tls(server: str) -> str:
    """What the listen of a server has behind its address."""
    return " ssl" if "ssl_certificate" in server else ""


def program() -> str:
    """The path of nginx. Skips the test where there is none."""
    found = shutil.which("nginx")
    if found is None:
        raise SkipTest("nginx is not installed: nothing is proven about a proxy in front")
    return found
