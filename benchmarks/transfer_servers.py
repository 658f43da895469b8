"""The programs that move files in the cases `transfer.…`: how each daemon is started, what its users type."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks import Missing
from benchmarks.http_servers import surroundings, twistd
from benchmarks.processes import Server, free_port, program, serving
from fileexport.keys import pin_of
from fileexport.tokens import generate_token

#: Seconds that a client's command may take.
LIMIT = 600
_TOKEN = generate_token()


@dataclass(frozen=True)
class Place:
    """What a daemon is given: the directory that it exports, one of its own for all else, port, TLS key.

    `key` is a PEM file with key and certificate; None for plain TCP.
    """

    export: Path
    home: Path
    port: int
    key: Path | None


#: Of a client's command: the words and the variables beside the user's own.
Words = tuple[list[str], Mapping[str, str]]
#: Makes a client's command from the daemon's place, what is moved, and the directory that it goes to. A path
#: on the daemon's side is relative to what it exports.
Client = Callable[[Place, Path, Path], Words]


@dataclass(frozen=True)
class Mover:
    """A daemon with its client: their name in the table, on the command line, and their commands."""

    name: str
    peer: str
    server: Callable[[Place], list[str]]
    push: Client
    pull: Client
    push_tree: Client

    @contextmanager
    def running(self, export: Path, key: Path | None) -> Iterator[tuple[Server, Place]]:
        """Export a directory for the `with` block. Raises `Missing`."""
        home = export.with_name(f"home-{self.peer or 'ours'}")
        home.mkdir()
        try:
            place = Place(export, home, free_port(), key)
            with serving(self.server(place), home, place.port, environ=surroundings(home)) as server:
                yield server, place
        finally:
            shutil.rmtree(home)


# -- ours


def _ours(durability: str) -> Callable[[Place], list[str]]:
    def command(place: Place) -> list[str]:
        tokens = place.home / "tokens"
        tokens.touch(mode=0o600)
        tokens.write_text(f"{_TOKEN}\n")
        listener = f"tcp:{place.port}:interface=127.0.0.1"
        words = ["--root", str(place.export), "--http", "none", "--transfer", listener]
        words += ["--token-file", str(tokens), "--state", str(place.home / "state")]
        words += ["--durability", durability, "--log-file", str(place.home / "log")]
        return [*twistd(), "fileexport", *words, *(["--private-key", str(place.key)] if place.key else [])]

    return command


def fileexport(place: Place, *words: str | Path) -> Words:
    """Our client's command line."""
    environ = {
        "FILEEXPORT_HOSTNAME": "127.0.0.1",
        "FILEEXPORT_PORT": str(place.port),
        "FILEEXPORT_TOKEN": _TOKEN,
    }
    if place.key:
        environ["FILEEXPORT_PUBLIC_KEY"] = pin_of(place.key.read_text())
    return [str(Path(sys.executable).with_name("fileexport")), *map(str, words)], environ


def _ours_mover(name: str, durability: str) -> Mover:
    return Mover(
        name,
        "" if durability == "fast" else "safe",
        _ours(durability),
        lambda place, source, target: fileexport(place, "upload", source, Path("/", target)),
        lambda place, source, target: fileexport(place, "download", Path("/", source), target),
        lambda place, source, target: fileexport(place, "upload", "-r", source, Path("/", target)),
    )


# -- rsync

_RSYNC = """
port = {port}
address = 127.0.0.1
use chroot = no
log file = {home}/log
lock file = {home}/lock
{owner}
[files]
path = {export}
read only = no
"""


def _rsync_daemon(place: Place) -> list[str]:
    # Its daemon gives root up otherwise, and could not write.
    owner = "uid = 0\ngid = 0" if os.geteuid() == 0 else ""
    text = _RSYNC.format(port=place.port, home=place.home, export=place.export, owner=owner)
    (place.home / "rsyncd.conf").write_text(text)
    return [program("rsync", "rsync"), "--daemon", "--no-detach", f"--config={place.home / 'rsyncd.conf'}"]


def rsync(*words: str | Path) -> Words:
    """The command line of rsync."""
    return [program("rsync", "rsync"), *map(str, words)], {}


def module(place: Place, path: Path) -> str:
    """How rsync spells a path of its daemon."""
    return f"rsync://127.0.0.1:{place.port}/files/{path}"


# The time of last change is kept, as ours keeps it.
RSYNC = Mover(
    "rsync daemon",
    "rsync",
    _rsync_daemon,
    lambda place, source, target: rsync("-t", source, f"{module(place, target)}/"),
    lambda place, source, target: rsync("-t", module(place, source), f"{target}/"),
    lambda place, source, target: rsync("-rt", source, f"{module(place, target)}/"),
)


# -- vsftpd

_VSFTPD = """
listen=YES
listen_address=127.0.0.1
listen_port={port}
background=NO
anonymous_enable=YES
no_anon_password=YES
local_enable=NO
write_enable=YES
anon_upload_enable=YES
anon_mkdir_write_enable=YES
anon_umask=022
anon_root={export}
secure_chroot_dir={home}/empty
xferlog_enable=YES
xferlog_file={home}/log
"""
_VSFTPD_TLS = """
ssl_enable=YES
rsa_cert_file={key}
allow_anon_ssl=YES
force_anon_logins_ssl=YES
force_anon_data_ssl=YES
require_ssl_reuse=NO
ssl_ciphers=HIGH
"""


def _vsftpd(place: Place) -> list[str]:
    if os.geteuid() != 0:
        raise Missing("it must be started by root")
    binary = program("vsftpd", "vsftpd")
    (place.home / "empty").mkdir()
    text = _VSFTPD + (_VSFTPD_TLS if place.key else "")
    configuration = place.home / "vsftpd.conf"
    configuration.write_text(
        text.format(port=place.port, export=place.export, home=place.home, key=place.key).lstrip()
    )
    return [binary, str(configuration)]


def _curl(place: Place, *words: str | Path) -> Words:
    tls = ["--ssl-reqd", "--cacert", str(place.key)] if place.key else []
    return [program("curl", "curl"), "--disable", "-sS", *tls, *map(str, words)], {}


def _ftp(place: Place, path: Path) -> str:
    return f"ftp://127.0.0.1:{place.port}/{path}"


def _curl_tree(place: Place, source: Path, target: Path) -> Words:
    listed = place.home / "curl.conf"
    # One connection for all; curl has no recursion of its own, and finding the files is not timed.
    listed.write_text(
        "".join(
            f"upload-file={path}\nurl={_ftp(place, target / path.relative_to(source.parent))}\n"
            for path in sorted(source.rglob("*"))
            if path.is_file()
        )
    )
    return _curl(place, "--ftp-create-dirs", "-K", listed)


VSFTPD = Mover(
    "vsftpd, curl",
    "vsftpd",
    _vsftpd,
    lambda place, source, target: _curl(place, "-T", source, _ftp(place, target / source.name)),
    lambda place, source, target: _curl(place, "-o", target / source.name, _ftp(place, source)),
    _curl_tree,
)

FAST = _ours_mover("fileexport, fast", "fast")
SAFE = _ours_mover("fileexport, safe", "safe")
#: All of them; ours, to which the others are compared, first.
PUSHERS: Sequence[Mover] = (FAST, SAFE, RSYNC, VSFTPD)
#: A reading daemon flushes nothing: there is one of ours.
PULLERS: Sequence[Mover] = (_ours_mover("fileexport", "fast"), RSYNC, VSFTPD)
