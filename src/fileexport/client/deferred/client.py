"""`AsyncClient`: the verbs of `Client` as Deferreds, many at once on one connection."""

from __future__ import annotations

from os import PathLike, fspath
from typing import TYPE_CHECKING, Any, TypeVar

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IStreamClientEndpoint

from fileexport.client import conversations as talks
from fileexport.client.connection import Wait
from fileexport.client.conversations import Format
from fileexport.client.deferred.bridge import Bridge
from fileexport.client.deferred.bridged import Bridged
from fileexport.client.deferred.calling import Talker, converse
from fileexport.client.deferred.dialing import Parting, Switchboard
from fileexport.client.deferred.iterating import Results, Telling
from fileexport.client.login import Server
from fileexport.client.names import RemoteEntry, RemoteHash, RemoteJob, remote_path
from fileexport.client.security import Security

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

T = TypeVar("T")
PathText = str | PathLike[str]


class AsyncClient(Bridged):
    """A client of one server, for a reactor: `Client`'s verbs, parameters, results and errors.

    What is one result there is a Deferred here, what is an iterator there an async one. `endpoint` is any
    client endpoint of Twisted's to reach the server by; `hostname` is then only its name for TLS, which goes
    through the endpoint where the parameters ask for it. An endpoint that brings TLS itself has judged the
    server, and needs no such parameter. Plain text goes to UNIX sockets, and to loopback addresses if
    `hostname` says that the server is there (``localhost``): a proxy is here for servers that are not.
    `reactor` is the one that is installed, unless another is given.

    All operations share one connection. It is made at the first call, and again after a loss; as many are
    under way as the server takes (64), others wait for their turn, which takes none of their time-out as long
    as those under way go on. Where none of them does, since each waits for its caller, it is `TimeoutError`.
    Transfers and trees run in threads, 16 at once beside those whose callbacks wait for something. Who takes
    the entries of long listings so slowly that 8 MiB of them wait holds up the others, for ten seconds at
    most, and gets `TimeoutError` then.

    A Deferred that is cancelled ends its operation, as the client's `close` does, and fails with
    `CancelledError`; the connection and all else go on. `close`, or the reactor's end, ends all operations,
    threads and the connection; a further call connects again. Everything is to be called in the reactor's
    thread.
    """

    def __init__(
        self,
        hostname: str,
        port: int = 6768,
        token: str | None = None,
        *,
        public_key: str | None = None,
        ca_file: PathText | None = None,
        tls: bool | None = None,
        timeout: float | None = None,
        compression: bool | None = None,
        client_certificate: PathText | None = None,
        endpoint: IStreamClientEndpoint | None = None,
        reactor: Any = None,
    ) -> None:
        Wait(timeout)
        if endpoint is not None and not IStreamClientEndpoint.providedBy(endpoint):
            raise TypeError(f"endpoint: no client endpoint of Twisted's: {endpoint!r}")
        files = [None if one is None else fspath(one) for one in (ca_file, client_certificate)]
        security = Security(public_key, files[0], tls, files[1])
        server = Server.of(hostname, port, token, security, compression)
        if reactor is None:
            from twisted.internet import reactor
        self._timeout = timeout
        self._reactor = reactor
        self._board = Switchboard(reactor, server, endpoint, self.close)
        self._bridge = Bridge(self._board, timeout)

    def close(self) -> Deferred[None]:
        """Cancel what is under way; fires when no connection and no thread is left."""
        return Deferred.fromCoroutine(self._close(self._board.part()))

    async def _close(self, parting: Parting) -> None:
        await self._bridge.close()
        await self._board.close(parting)

    def __aenter__(self) -> Deferred[Self]:
        return succeed(self)

    def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> Deferred[None]:
        return self.close()

    # Looking.

    def list_files(
        self, directory: PathText, timeout: float | None = None
    ) -> Deferred[dict[str, tuple[bool, int, int]]]:
        """As `Client.list_files`."""
        return self._converse(talks.list_files(directory), timeout)

    def entries(
        self, directory: PathText, recursive: bool = False, timeout: float | None = None
    ) -> Results[RemoteEntry]:
        """As `Client.entries`: an async iterator."""
        return self._tell(talks.entries(remote_path(directory), recursive), timeout)

    def stat(self, path: PathText, timeout: float | None = None) -> Deferred[RemoteEntry]:
        """As `Client.stat`."""
        return self._converse(talks.stat(path), timeout)

    def read(self, path: PathText, timeout: float | None = None) -> Results[bytes]:
        """As `Client.read`: an async iterator."""
        return self._tell(talks.content(remote_path(path)), timeout)

    def hashes(self, path: PathText, timeout: float | None = None) -> Results[RemoteHash]:
        """As `Client.hashes`: an async iterator."""
        return self._tell(talks.hashes(remote_path(path)), timeout)

    # Changing.

    def create_file(
        self, name: str, directory: PathText, timeout: float | None = None, exist_ok: bool = False
    ) -> Deferred[None]:
        """As `Client.create_file`."""
        return self._converse(talks.create_file(name, directory, exist_ok), timeout)

    def make_directory(
        self, name: str, directory: PathText, timeout: float | None = None, exist_ok: bool = False
    ) -> Deferred[None]:
        """As `Client.make_directory`."""
        return self._converse(talks.make_directory(name, directory, exist_ok), timeout)

    def rename(self, path: PathText, new_path: PathText, timeout: float | None = None) -> Deferred[None]:
        """As `Client.rename`."""
        return self.move(path, new_path, timeout=timeout)

    def move(
        self, path: PathText, new_path: PathText, replace: bool = False, timeout: float | None = None
    ) -> Deferred[None]:
        """As `Client.move`."""
        return self._converse(talks.move(path, new_path, replace), timeout)

    def delete_file(self, name: str, directory: PathText, timeout: float | None = None) -> Deferred[None]:
        """As `Client.delete_file`."""
        return self._converse(talks.delete_file(name, directory), timeout)

    def remove(self, path: PathText, recursive: bool = False, timeout: float | None = None) -> Deferred[int]:
        """As `Client.remove`."""
        return self._converse(talks.remove(path, recursive), timeout)

    # Jobs.

    def compress(
        self, path: PathText, format: Format = "tar.gz", timeout: float | None = None
    ) -> Deferred[RemoteJob]:
        """As `Client.compress`."""
        return self._converse(talks.compress(path, format), timeout)

    def jobs(self, limit: int = 100, timeout: float | None = None) -> Deferred[list[RemoteJob]]:
        """As `Client.jobs`."""
        return self._converse(talks.jobs(limit), timeout)

    def job(self, id: str, wait: int = 0, timeout: float | None = None) -> Deferred[RemoteJob]:
        """As `Client.job`."""
        return self._converse(talks.job(id, wait), timeout)

    def cancel(self, id: str, timeout: float | None = None) -> Deferred[RemoteJob]:
        """As `Client.cancel`."""
        return self._converse(talks.cancel(id), timeout)

    # Inside.

    def _wait(self, timeout: float | None) -> Wait:
        return Wait(self._timeout if timeout is None else timeout)

    def _converse(self, talk: talks.Talk[T], timeout: float | None) -> Deferred[T]:
        return Deferred.fromCoroutine(self._conversed(talk, timeout))

    async def _conversed(self, talk: talks.Talk[T], timeout: float | None) -> T:
        talker: Talker[object, T] = Talker(self._board, talk, self._wait(timeout))
        return await converse(talker)

    def _tell(self, tale: talks.Tale[T], timeout: float | None) -> Results[T]:
        return Results(self._reactor, Telling(Talker(self._board, tale, self._wait(timeout))))
