"""Which server is meant where a program does not say: from variables to the parameters of `Client`."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fileexport.client.blocking import Client

#: Where a server listens unless somebody says otherwise.
PORT = 6768
#: Bytes of a token file that are read.
_MAX_TOKEN_FILE = 64 << 10
#: What is said where only TLS would do.
_ADVICE = "set FILEEXPORT_PUBLIC_KEY, FILEEXPORT_CA_FILE or FILEEXPORT_TLS=1 for TLS, or FILEEXPORT_TLS=0"
_YES, _NO = frozenset(("1", "true", "yes", "on")), frozenset(("0", "false", "no", "off", ""))


def client_of_environment(hostname: str | None = None, port: int | None = None) -> Client:
    """A client of the server that the environment names, or of this one with its token and its TLS.

    A server that is named here has the usual port unless a port is named too: then that of the environment is
    another one's. Raises ValueError.
    """
    from fileexport.client.blocking import Client

    if hostname is not None and port is None:
        port = PORT
    made = Client(**settings_of_environment(os.environ, hostname, port))
    server = made._pool.server
    made._pool.server = replace(server, security=replace(server.security, advice=_ADVICE))
    return made


def settings_of_environment(
    environ: Mapping[str, str],
    hostname: str | None = None,
    port: int | str | None = None,
    *,
    token: str | None = None,
    public_key: str | None = None,
    ca_file: str | os.PathLike[str] | None = None,
    tls: bool | None = None,
    **others: Any,
) -> dict[str, Any]:
    """The parameters of `Client`: what is given comes first, then the environment; `others` as they are.

    How the server is known is one thing: where a key, an authority or `tls` is given, all three are.
    Raises ValueError with a sentence that names the variable to be set.
    """
    if not (hostname or environ.get("FILEEXPORT_HOSTNAME")):
        raise ValueError("no server is named: set FILEEXPORT_HOSTNAME")
    if not public_key and not ca_file and tls is None:
        public_key, ca_file = environ.get("FILEEXPORT_PUBLIC_KEY"), environ.get("FILEEXPORT_CA_FILE")
        tls = _switch(environ, "FILEEXPORT_TLS")
    return {
        "hostname": hostname or environ["FILEEXPORT_HOSTNAME"],
        "port": _port(port, environ.get("FILEEXPORT_PORT")),
        "token": read_token(environ) if token is None else token,
        "public_key": public_key or None,
        "ca_file": ca_file or None,
        "tls": tls,
        **others,
    }


def _port(given: int | str | None, named: str | None) -> int:
    is_given = given not in (None, "")
    text = str(given) if is_given else named or str(PORT)
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:6]) <= 65535):
        where = f", not {text[:20]!r}" if is_given else " (FILEEXPORT_PORT)"
        raise ValueError(f"the port is a number from 1 to 65535{where}")
    return int(text)


def _switch(environ: Mapping[str, str], name: str) -> bool | None:
    if name not in environ:
        return None
    value = environ[name].strip().lower()
    if value not in _YES | _NO:
        raise ValueError(f"{name} is 1 or 0")
    return value in _YES if value else None


def read_token(environ: Mapping[str, str]) -> str:
    """The token, from FILEEXPORT_TOKEN or else the file that FILEEXPORT_TOKEN_FILE names.

    Raises ValueError, which never shows what is in the file.
    """
    if token := environ.get("FILEEXPORT_TOKEN"):
        return token
    name = environ.get("FILEEXPORT_TOKEN_FILE")
    if not name:
        raise ValueError("there is no token: set FILEEXPORT_TOKEN, or FILEEXPORT_TOKEN_FILE to its file")
    try:
        text = _read_secret(name)
    except OSError as error:
        raise ValueError(f"FILEEXPORT_TOKEN_FILE: the file cannot be read: {error.strerror}") from None
    for line in text.splitlines():
        words = line.split()
        if words and not words[0].startswith("#"):
            if words[0].startswith("fex1:"):
                raise ValueError("FILEEXPORT_TOKEN_FILE: the file holds a token's stored form only")
            return words[0]
    raise ValueError("FILEEXPORT_TOKEN_FILE: the file holds no token")


def _read_secret(name: str) -> str:
    """A file that nobody else may read; a pipe will do."""
    with open(name, "rb") as file:
        about = os.fstat(file.fileno())
        if stat.S_ISREG(about.st_mode) and about.st_mode & 0o077:
            raise ValueError("FILEEXPORT_TOKEN_FILE: others may read or write the file: chmod 600 it")
        return file.read(_MAX_TOKEN_FILE).decode("ascii", "replace")
