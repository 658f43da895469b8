"""What opens remote files by a client: the method, and the modes that there are."""

from __future__ import annotations

from typing import IO, TYPE_CHECKING, Any, BinaryIO, Literal, cast, overload

if TYPE_CHECKING:
    from io import TextIOWrapper

    from fileexport.client.blocking import Client
    from fileexport.client.matching import PathText

TextMode = Literal["r", "rt", "tr", "w", "wt", "tw", "x", "xt", "tx"]
BinaryMode = Literal["rb", "br", "wb", "bw", "xb", "bx"]


class Opening:
    """Opens files; `Client` is one."""

    @overload
    def open(
        self,
        path: PathText,
        mode: TextMode = "r",
        *,
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
        timeout: float | None = None,
    ) -> TextIOWrapper: ...
    @overload
    def open(
        self, path: PathText, mode: BinaryMode, *, buffering: int = -1, timeout: float | None = None
    ) -> BinaryIO: ...
    @overload
    def open(
        self,
        path: PathText,
        mode: str,
        *,
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
        timeout: float | None = None,
    ) -> IO[Any]: ...
    def open(
        self,
        path: PathText,
        mode: str = "r",
        *,
        buffering: int = -1,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
        timeout: float | None = None,
    ) -> IO[Any]:
        """Open a file as `fileexport.open` does; `timeout` is for each answer as long as it is open.

        The client has to be closed by itself.
        """
        from fileexport.client.remote.files import Wish, check_same_server, open_file
        from fileexport.client.remote.names import place_of

        wish = Wish.of(mode, buffering, encoding, errors, newline)
        client, place = cast("Client", self), place_of(path)
        check_same_server(client, place.hostname, place.port)
        return open_file(client, place.path, wish, timeout)
