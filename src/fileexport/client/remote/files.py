"""`open`: files of a server by the interface that files of this machine have."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Callable
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Any, BinaryIO, NamedTuple, cast, overload

from fileexport.client.environment import PORT, client_of_environment
from fileexport.client.names import remote_path
from fileexport.client.remote.names import RemoteNames, place_of

if TYPE_CHECKING:
    from fileexport.client.blocking import Client
    from fileexport.client.matching import PathText
    from fileexport.client.remote.opening import BinaryMode, TextMode
    from fileexport.client.remote.path import RemotePath
    from fileexport.client.remote.reading import RemoteReader
    from fileexport.client.remote.writing import RemoteWriter

#: Bytes of a buffer where nobody says otherwise: for reading, for reading a small file, for writing.
_BUFFER, _LEAST, _WRITTEN = 1 << 20, 8 << 10, 128 << 10


@overload
def open(
    path: PathText | RemotePath,
    mode: TextMode = "r",
    *,
    client: Client | None = None,
    buffering: int = -1,
    encoding: str | None = None,
    errors: str | None = None,
    newline: str | None = None,
) -> io.TextIOWrapper: ...
@overload
def open(
    path: PathText | RemotePath, mode: BinaryMode, *, client: Client | None = None, buffering: int = -1
) -> BinaryIO: ...
@overload
def open(
    path: PathText | RemotePath,
    mode: str,
    *,
    client: Client | None = None,
    buffering: int = -1,
    encoding: str | None = None,
    errors: str | None = None,
    newline: str | None = None,
) -> IO[Any]: ...
def open(
    path: PathText | RemotePath,
    mode: str = "r",
    *,
    client: Client | None = None,
    buffering: int = -1,
    encoding: str | None = None,
    errors: str | None = None,
    newline: str | None = None,
) -> IO[Any]:
    """Open a file of a server, as the built-in `open` does one of this machine.

    `path` is absolute, or ``fileexport://host:port/path``, percent-encoded, or a `RemotePath`, whose client
    is used. Without a `client` the server is the one of the URL, else the one that FILEEXPORT_HOSTNAME names,
    and token and TLS come from the environment as for the command `fileexport`; the file has a client of its
    own then, which it closes.

    ``r`` reads any part without fetching the rest; see `RemoteReader`. ``w`` writes a new content, or a new
    file, ``x`` a new file only: what is written is sent when it is closed, and committed in one step. Until
    then, and where a `with` block is left by an exception, the server keeps what it had; see `RemoteWriter`.
    ``a`` and ``+`` are `io.UnsupportedOperation`.

    Raises ValueError for a mode that is none, a relative path, a URL of another server than the client's, and
    for what the environment lacks; `FileNotFoundError`, `FileExistsError`, `IsADirectoryError`; else as
    `Client`.
    """
    wish = Wish.of(mode, buffering, encoding, errors, newline)
    if isinstance(path, RemoteNames):
        client = path.client_for(client)
        path = str(path)
    place = place_of(path)
    if client is None:
        own = client_of_environment(place.hostname, place.port)
        try:
            return open_file(own, place.path, wish, None, own.close)
        except BaseException:
            own.close()
            raise
    check_same_server(client, place.hostname, place.port)
    return open_file(client, place.path, wish)


class Wish(NamedTuple):
    """How a file is to be opened: what the parameters of `open` say together."""

    mode: str
    kind: str
    is_text: bool
    buffering: int
    encoding: str | None
    errors: str | None
    newline: str | None

    @classmethod
    def of(
        cls, mode: str, buffering: int, encoding: str | None, errors: str | None, newline: str | None
    ) -> Wish:
        """Raises ValueError and TypeError as `open`, `io.UnsupportedOperation` for ``a`` and ``+``."""
        if not isinstance(mode, str):
            raise TypeError(f"the mode is a str, not {type(mode).__name__}")
        letters = set(mode)
        kinds = letters & set("rwxa")
        if len(mode) > len(letters) or letters - set("rwxabt+") or len(kinds) != 1 or letters >= {"b", "t"}:
            raise ValueError(f"invalid mode: {mode!r}")
        if letters & {"a", "+"}:
            raise io.UnsupportedOperation(
                f"mode {mode!r}: a remote file is read, or it is written from its beginning"
            )
        is_text = "b" not in letters
        if not is_text and (encoding, errors, newline) != (None, None, None):
            raise ValueError("binary mode takes no encoding, no errors and no newline")
        if is_text and buffering == 0:
            raise ValueError("only a binary file can be without a buffer")
        if is_text:
            encoding = io.text_encoding(encoding, 3)
        return cls(mode, kinds.pop(), is_text, buffering, encoding, errors, newline)


def open_file(
    client: Client,
    path: PathText,
    wish: Wish,
    timeout: float | None = None,
    leave: Callable[[], object] | None = None,
) -> IO[Any]:
    """Open a file of a client's server; `leave` is called when it was closed.

    A path that ends with a slash is a directory's: it is refused as the built-in `open` does.
    """
    is_directory = os.fspath(path).endswith("/")
    if wish.kind == "r":
        ahead = wish.buffering if wish.buffering not in (-1, 1) else _BUFFER
        raw = reader(client, path, ahead, timeout, None if is_directory else leave)
        if is_directory:
            raw.close()
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
        return cast(IO[Any], _read(raw, wish))
    if is_directory:
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    return cast(IO[Any], _write(writer(client, path, wish.kind == "x", True, timeout, leave), wish))


def reader(
    client: Client,
    path: PathText,
    ahead: int = 0,
    timeout: float | None = None,
    leave: Callable[[], object] | None = None,
    *,
    in_parts: bool = False,
) -> RemoteReader:
    """A file of a client's server, open for reading, without a buffer: see there. Raises as `open`."""
    from fileexport.client.remote.reading import RemoteReader

    asked = remote_path(path)
    return RemoteReader(
        client._pool, asked, lambda: client._wait(timeout), ahead=ahead, in_parts=in_parts, leave=leave
    )


def writer(
    client: Client,
    path: PathText,
    exclusive: bool = False,
    commits: bool = True,
    timeout: float | None = None,
    leave: Callable[[], object] | None = None,
) -> RemoteWriter:
    """A file of a client's server, open for writing, without a buffer: see there. Raises as `open`."""
    from fileexport.client.remote.writing import RemoteWriter

    asked = remote_path(path)
    _check_place(client, str(asked), exclusive, timeout)
    return RemoteWriter(
        client._pool,
        asked,
        lambda: client._wait(timeout),
        exclusive=exclusive,
        commits=commits,
        leave=leave,
    )


def check_same_server(client: Client, hostname: str | None, port: int | None) -> None:
    """Raise ValueError where a URL names another server than the client's.

    Without a host it means the client's; with a host, and no port, the usual one.
    """
    server = client._pool.server
    named = (hostname or server.hostname).lower(), port or (PORT if hostname else server.port)
    if named != (server.hostname.lower(), server.port):
        raise ValueError(f"the URL names another server than the client's: {named[0]} port {named[1]}")


def _check_place(client: Client, path: str, exclusive: bool, timeout: float | None) -> None:
    """Refuse early what cannot be written in the end, as far as the token may look."""
    with suppress(PermissionError):
        try:
            kind = client.stat(path, timeout).type
        except FileNotFoundError as missing:
            if parent := path.rpartition("/")[0]:
                try:
                    client.stat(parent, timeout)
                except FileNotFoundError:
                    raise missing from None
            return
        if exclusive:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
        if kind == "directory":
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)


def _read(raw: RemoteReader, wish: Wish) -> io.IOBase:
    try:
        if wish.buffering == 0:
            return raw
        size = wish.buffering if wish.buffering > 1 else min(_BUFFER, max(_LEAST, raw.size))
        buffer = io.BufferedReader(raw, size)
        if not wish.is_text:
            return buffer
        text = io.TextIOWrapper(buffer, wish.encoding, wish.errors, wish.newline, wish.buffering == 1)
        vars(text)["mode"] = wish.mode
        return text
    except BaseException:
        raw.close()
        raise


def _write(raw: RemoteWriter, wish: Wish) -> io.IOBase:
    from fileexport.client.remote.writing import BufferedRemoteWriter, TextRemoteWriter

    try:
        if wish.buffering == 0:
            return raw
        buffer = BufferedRemoteWriter(raw, wish.buffering if wish.buffering > 1 else _WRITTEN)
        if not wish.is_text:
            return buffer
        text = TextRemoteWriter(buffer, wish.encoding, wish.errors, wish.newline, wish.buffering == 1)
        vars(text)["mode"] = wish.mode
        return text
    except BaseException:
        raw.discard()
        raise
