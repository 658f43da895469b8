"""The HTTP servers that are compared: how each is started, as its users do and with its access log on."""

from __future__ import annotations

import datetime
import ipaddress
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from benchmarks import Missing
from benchmarks.processes import Server, free_port, program, serving

#: Connections that each server must be able to hold.
CONNECTIONS = 12_000


@dataclass(frozen=True)
class Place:
    """What a server is given: the directory to serve, one of its own for all else, its port, its TLS key.

    `key` is a PEM file with key and certificate; None for plain HTTP.
    """

    files: Path
    home: Path
    port: int
    key: Path | None


@dataclass(frozen=True)
class Kind:
    """One server: its name in the table, its name on the command line, and its command for a place."""

    name: str
    peer: str
    command: Callable[[Place], list[str]]

    @contextmanager
    def running(self, files: Path, key: Path | None = None) -> Iterator[tuple[Server, int]]:
        """Serve `files` for the `with` block; gives the server and its port. Raises `Missing`."""
        home = files.with_name(f"home-{self.peer or 'ours'}")
        home.mkdir()
        try:
            place = Place(files, home, free_port(), key)
            with serving(self.command(place), home, place.port, environ=surroundings(home)) as server:
                yield server, place.port
        finally:
            shutil.rmtree(home)


def surroundings(home: Path) -> dict[str, str]:
    """Variables for a server that runs in `home`: nothing of the user's is read or written."""
    paths = [os.path.abspath(path) for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    names = ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME")
    # Installed packages come compiled: what is compiled here must be kept as well, or each start pays for it.
    compiled = {"PYTHONDONTWRITEBYTECODE": ""}
    return {**dict.fromkeys(names, str(home)), "PYTHONPATH": os.pathsep.join(paths), **compiled}


def twistd() -> list[str]:
    """How this Python's twistd is started in the foreground."""
    return [str(Path(sys.executable).with_name("twistd")), "-n", "--pidfile="]


def _ours(place: Place) -> list[str]:
    listener = f"tcp:{place.port}:interface=127.0.0.1"
    key = ["--private-key", str(place.key)] if place.key else []
    log = ["--log-file", str(place.home / "log")]
    other = ("--transfer", "none")
    return [*twistd(), "fileexport", "--root", str(place.files), "--http", listener, *other, *key, *log]


def _static_file(place: Place) -> list[str]:
    # ssl: is what its users write; privateKey may hold the certificate too.
    kind, key = ("ssl", f":privateKey={place.key}:certKey={place.key}") if place.key else ("tcp", "")
    listener = f"{kind}:{place.port}:interface=127.0.0.1{key}"
    log = ["--logfile", str(place.home / "log")]
    return [*twistd(), "web", "--path", str(place.files), "--listen", listener, *log]


_NGINX = """
{user}
worker_processes {workers};
worker_rlimit_nofile {files};
daemon off;
pid {home}/pid;
error_log {home}/error;
events {{ worker_connections {connections}; }}
http {{
    default_type application/octet-stream;
    sendfile on;
    tcp_nopush on;
    keepalive_requests 100000000;
    access_log {home}/log;
    client_body_temp_path {home}/body;
    proxy_temp_path {home}/proxy;
    fastcgi_temp_path {home}/fastcgi;
    uwsgi_temp_path {home}/uwsgi;
    scgi_temp_path {home}/scgi;
    {tls}
    server {{
        listen 127.0.0.1:{port}{ssl};
        root {root};
        autoindex on;
        autoindex_format json;
        {put}
    }}
}}
"""


#: With the dav module, and without a limit of its own.
_NGINX_PUT = "dav_methods PUT DELETE; create_full_put_path on; client_max_body_size 0;"


def _nginx(workers: int, put: str = "") -> Callable[[Place], list[str]]:
    def command(place: Place) -> list[str]:
        binary = program("nginx", "nginx-light")
        tls = f"ssl_certificate {place.key}; ssl_certificate_key {place.key}; ssl_protocols TLSv1.3;"
        text = _NGINX.format(
            # Its workers give root up otherwise, and could not read the files.
            user="user root;" if os.geteuid() == 0 else "",
            workers=workers,
            files=CONNECTIONS + 1000,
            connections=CONNECTIONS,
            home=place.home,
            port=place.port,
            root=place.files,
            put=put,
            tls=tls if place.key else "",
            ssl=" ssl" if place.key else "",
        )
        (place.home / "nginx.conf").write_text(text)
        return [binary, "-p", str(place.home), "-c", str(place.home / "nginx.conf"), "-e", "stderr"]

    return command


_CADDY = """
{{
    admin off
    auto_https off
    storage file_system {home}
}}
{scheme}://127.0.0.1:{port} {{
    bind 127.0.0.1
    {tls}
    root * {root}
    file_server browse
    log {{
        output file {home}/log
    }}
}}
"""


def _caddy(place: Place) -> list[str]:
    binary = program("caddy", "caddy")
    text = _CADDY.format(
        home=place.home,
        scheme="https" if place.key else "http",
        port=place.port,
        tls=f"tls {place.key} {place.key}" if place.key else "",
        root=place.files,
    )
    (place.home / "Caddyfile").write_text(text)
    return [binary, "run", "--config", str(place.home / "Caddyfile"), "--adapter", "caddyfile"]


# A text, because aiohttp is not among what we are checked with.
_AIOHTTP = """
import logging, ssl, sys
from aiohttp import web
port, root, log, key = sys.argv[1:]
logging.basicConfig(filename=log, level=logging.INFO)
context = None
if key:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(key)
app = web.Application()
app.router.add_static("/", root)
web.run_app(app, host="127.0.0.1", port=int(port), ssl_context=context, print=None)
"""


def _aiohttp(place: Place) -> list[str]:
    if find_spec("aiohttp") is None:
        raise Missing("aiohttp is not installed in this environment (pip install aiohttp)")
    words = (place.port, place.files, place.home / "log", place.key or "")
    return [sys.executable, "-c", _AIOHTTP, *map(str, words)]


def _http_server(place: Place) -> list[str]:
    if place.key:
        raise Missing("it has no TLS before Python 3.14")
    # Its log goes to standard error: a file here. Not with --protocol HTTP/1.1, which makes it slower still:
    # header and body leave in two writes, and the second waits for the first one's acknowledgement.
    words = ["--bind", "127.0.0.1", "--directory", str(place.files)]
    return [sys.executable, "-m", "http.server", *words, str(place.port)]


OURS = Kind("fileexport", "", _ours)
PEERS = (
    Kind("nginx, 1 worker", "nginx", _nginx(1)),
    Kind("nginx, 2 workers", "nginx-2", _nginx(2)),
    Kind("caddy", "caddy", _caddy),
    Kind("twistd web", "twistd-web", _static_file),
    Kind("aiohttp", "aiohttp", _aiohttp),
    Kind("http.server", "http-server", _http_server),
)
#: Those that store what is put.
PUT_PEERS = (Kind("nginx, 1 worker", "nginx", _nginx(1, _NGINX_PUT)),)


def make_key(path: Path) -> None:
    """Write a P-256 key and its own certificate for 127.0.0.1 into one PEM file that only we can read."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "benchmark")])
    today = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(today - datetime.timedelta(days=1))
        .not_valid_after(today + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    path.touch(mode=0o600)
    path.write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + certificate.public_bytes(pem)
    )
