"""Servers for tests: one on loopback for programs of any kind, one in memory for Twisted's.

`serving` is a whole daemon in a thread, on a port of its own. `MemoryServer` has the same transfer protocol
without sockets and threads, and its time is the test's. Both export a real directory, a temporary one unless
another is named. For tests only: nothing here is meant for a program's own use.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, ParamSpec, TypedDict, TypeVar, Unpack

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, execute, fail, succeed
from twisted.internet.error import ConnectionLost
from twisted.internet.error import ConnectionRefusedError as NotAccepted
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.testing import MemoryReactorClock
from twisted.test.iosim import FakeTransport, IOPump
from zope.interface import implementer

from fileexport.client.blocking import Client
from fileexport.client.deferred.bridge import Bridge
from fileexport.client.deferred.client import AsyncClient
from fileexport.compression import Compression
from fileexport.config import Durability, Settings
from fileexport.disk.jail import Jail
from fileexport.disk.state import State
from fileexport.exports import Exports
from fileexport.jobs import Jobs
from fileexport.keys import generate_keys
from fileexport.server import Server
from fileexport.token_file import parse_token_file
from fileexport.tokens import check_token, generate_token
from fileexport.transfer_desk import Limits
from fileexport.transfer_protocol import TransferFactory

if TYPE_CHECKING:
    from typing import Self

__all__ = ["MemoryServer", "Serving", "serving", "token"]

P = ParamSpec("P")
T = TypeVar("T")
PathText = str | os.PathLike[str]

_HOST = "127.0.0.1"
#: Ports of those who connect in memory.
_CLIENT_PORT = 40_000
_SERVER_PORT = 6768


class ClientOptions(TypedDict, total=False):
    """What a client of `serving` may have beside what reaches the server; see `fileexport.Client`."""

    token: str | None
    public_key: str | None
    ca_file: PathText | None
    tls: bool | None
    timeout: float | None
    compression: bool | None
    client_certificate: PathText | None


class MemoryOptions(TypedDict, total=False):
    """The same for `MemoryServer`, where there is no TLS."""

    token: str | None
    timeout: float | None
    compression: bool | None


class ServerOptions(TypedDict, total=False):
    """What `serving` hands on to `fileexport.Server`."""

    file_size_limit: int
    chunk_size_range: tuple[int, int]
    state_directory: PathText | None


def token() -> str:
    """A new token, as `fileexport.generate_token` makes it: no two tests have the same."""
    return generate_token()


# -- on loopback


class Serving:
    """A server that runs, as `serving` gives it.

    - `root`: the exported directory. `directory`: a temporary one beside it, for the test's own files.
    - `hostname`, `port`: where it listens. `token`: what lets a client in.
    - `public_key`: its pin, for `Client(public_key=…)`, and `certificate`: the PEM file of its certificate,
      for clients that know nothing of pins; None without TLS.
    """

    def __init__(self, root: Path, directory: Path, token: str, keys: tuple[str, str] | None) -> None:
        self.root = root
        self.directory = directory
        self.hostname = _HOST
        self.port = 0
        self.token = token
        self.public_key = keys[0] if keys else None
        self.certificate = directory / "certificate.pem" if keys else None
        self._url: str | None = None

    @property
    def url(self) -> str:
        """Where the HTTP side is, ``http://127.0.0.1:40123/``; ValueError when it was not asked for."""
        if self._url is None:
            raise ValueError("this server speaks no HTTP: serving(http=True)")
        return self._url

    @property
    def environment(self) -> dict[str, str]:
        """The variables that name this server to the command `fileexport`, to `open` and to `RemotePath`."""
        known = {
            "FILEEXPORT_HOSTNAME": self.hostname,
            "FILEEXPORT_PORT": str(self.port),
            "FILEEXPORT_TOKEN_FILE": str(self.directory / "token"),
        }
        return known if self.public_key is None else {**known, "FILEEXPORT_PUBLIC_KEY": self.public_key}

    def client(self, **options: Unpack[ClientOptions]) -> Client:
        """A new client of it; close it, or use it in a `with` block."""
        return Client(self.hostname, self.port, **self._known(options))

    def async_client(self, *, reactor: Any = None, **options: Unpack[ClientOptions]) -> AsyncClient:
        """A new Twisted client of it, for the installed reactor unless another is given; close it as well."""
        return AsyncClient(self.hostname, self.port, reactor=reactor, **self._known(options))

    def _known(self, options: ClientOptions) -> ClientOptions:
        known: ClientOptions = {"token": self.token}
        if options.keys().isdisjoint(("public_key", "ca_file", "tls")):
            known["public_key"] = self.public_key
        return {**known, **options}


@contextmanager
def serving(
    root: PathText | None = None,
    *,
    tls: bool = False,
    http: bool = False,
    may: str | None = None,
    token: str | None = None,
    tokens: str = "",
    settings: Settings | None = None,
    **options: Unpack[ServerOptions],
) -> Iterator[Serving]:
    """A server for a `with` block, on a free port of 127.0.0.1, in a thread; its value is a `Serving`.

    - `root`: what it exports; None: a new directory, which goes with the block.
    - `tls`: with a key of its own. `http`: the HTTP side answers on the same port as well.
    - `token`: None: a new one. `may`: what it lets do, as a token file says it, ``"read,write"``; None:
      everything. `tokens`: the text of a token file with further ones.
    - `settings` and `options` are those of `fileexport.Server`, but that no token file is named there. Unless
      settings are given, nothing waits for the disk, so that tests are fast.

    Raises RuntimeError where it cannot start, ValueError for a token that is none and for settings with a
    token file.
    """
    secret = generate_token() if token is None else token
    check_token(secret)
    if settings is not None and settings.token_file is not None:
        raise ValueError("settings with a token file: give its text as tokens=")
    with ExitStack() as exits:
        directory = Path(exits.enter_context(tempfile.TemporaryDirectory(prefix="fileexport-"))).resolve()
        keys = generate_keys() if tls else None
        found = Serving(_root(root, directory), directory, secret, keys)
        _write(directory / "token", f"{secret}\n")
        _write(directory / "tokens", _token_lines(secret, may, tokens))
        if keys is not None:
            begin = "-----BEGIN CERTIFICATE"
            _write(directory / "certificate.pem", begin + keys[1].partition(begin)[2])
        settings = settings or Settings(durability=Durability.FAST)
        # Who has the one token of a server's own may do everything: this one nobody gets.
        server = Server(
            found.root,
            generate_token(),
            keys[1] if keys else None,
            http=http,
            settings=replace(settings, token_file=str(directory / "tokens")),
            **options,
        )
        exits.enter_context(server.running(0, _HOST))
        found.port = server.port
        if http:
            found._url = f"{'https' if tls else 'http'}://{found.hostname}:{found.port}/"
        yield found


def _root(root: PathText | None, directory: Path) -> Path:
    """The directory that is exported: this one, or a new one."""
    if root is not None:
        return Path(root)
    made = directory / "root"
    made.mkdir()
    return made


def _write(path: Path, text: str) -> None:
    """Write a file that is our own only."""
    path.touch(mode=0o600)
    path.write_text(text, encoding="utf-8")


def _token_lines(token: str, may: str | None, more: str) -> str:
    """The text of a token file."""
    return f"{token} name=test{'' if may is None else f' may={may}'}\n{more}"


# -- in memory


class Immediate:
    """A `fileexport.pools.Worker` that calls each function at once, in the caller's thread."""

    def run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        """Fires with the function's result or its exception."""
        return execute(function, *args, **kwargs)


class MemoryReactor(MemoryReactorClock):
    """A reactor without sockets, whose time is the test's; for threads it has its next turn."""

    def __init__(self) -> None:
        super().__init__()
        self._triggers: dict[object, Callable[[], object]] = {}

    def callFromThread(self, callable: Callable[..., object], *args: object, **kwargs: object) -> None:
        """Call it at the next turn."""
        self.callLater(0, callable, *args, **kwargs)

    def addSystemEventTrigger(
        self, phase: str, eventType: str, callable: Callable[..., Any], *args: object, **kw: object
    ) -> Any:
        """Keep it: this reactor never ends."""
        key = object()
        self._triggers[key] = partial(callable, *args, **kw)
        return key

    def removeSystemEventTrigger(self, triggerID: Any) -> None:
        """Forget it."""
        del self._triggers[triggerID]


class _NoThreads(Bridge):
    """Instead of threads, whose time is not the test's, an exception."""

    def job(self) -> NoReturn:
        """Nothing can be run."""
        raise RuntimeError("this verb needs threads, and a MemoryServer has none: test it with serving()")


class MemoryServer:
    """The transfer protocol of a daemon in memory: no sockets, no threads, and a clock of the test's own.

    Nothing moves by itself: `flush` carries what both sides have said until nobody says anything, `advance`
    lets time pass. To be used in one thread, and in a `with` block or with `close`::

        with MemoryServer() as server:
            (server.root / "a.txt").write_text("hello")
            listing = server.client().list_files("/")
            server.flush()
            self.assertEqual(list(self.successResultOf(listing)), ["a.txt"])

    Verbs of `AsyncClient` that are one conversation work: listings, `read`, changes, jobs. Transfers of local
    files and of trees need threads: here they raise RuntimeError, and a test of these needs `serving`.

    - `root`: the exported directory, the given one or a new one, which goes with `close`.
    - `token`: what lets a client in. `may` and `tokens` are those of `serving`; `file_size_limit` is in
      bytes.
    - `reactor`: a `MemoryReactorClock`, for whatever of the program under test needs a reactor.
    - `endpoint`: an `IStreamClientEndpoint` of this server, for programs that make their client themselves.

    Raises ConfigurationError where the tokens cannot be read.
    """

    def __init__(
        self,
        root: PathText | None = None,
        *,
        token: str | None = None,
        may: str | None = None,
        tokens: str = "",
        file_size_limit: int = 1 << 40,
    ) -> None:
        self.token = generate_token() if token is None else token
        table = parse_token_file(_token_lines(self.token, may, tokens), "tokens")
        self.reactor = MemoryReactor()
        self.reactor.advance(time.time())
        self._exits = ExitStack()
        temporary = tempfile.TemporaryDirectory(prefix="fileexport-")
        self._directory = Path(self._exits.enter_context(temporary)).resolve()
        self.root = _root(root, self._directory)
        self._jail = Jail(str(self.root), durable=False)
        self._exits.callback(self._jail.close)
        worker = Immediate()
        self._factory = TransferFactory(
            self.reactor,
            Exports(self._jail),
            lambda: table,
            worker,
            worker,
            self,
            now=self.reactor.seconds,
            record=lambda finished: None,
            limits=Limits(file_size_limit),
        )
        self.endpoint: IStreamClientEndpoint = _Endpoint(self._connect)
        self._wires: list[IOPump] = []

    def client(self, **options: Unpack[MemoryOptions]) -> AsyncClient:
        """A new client of it; it connects at its first call."""
        known: MemoryOptions = {"token": self.token, **options}
        found = AsyncClient(_HOST, endpoint=self.endpoint, reactor=self.reactor, **known)
        found._bridge = _NoThreads(found._board, found._timeout)
        return found

    def flush(self) -> None:
        """Carry over what was said, and what is said to that, until both sides are quiet."""
        has_moved = True
        while has_moved:
            self.reactor.advance(0)
            has_moved = any([wire.pump(advanceClock=False) for wire in tuple(self._wires)])
        self._wires = [wire for wire in self._wires if not wire.clientIO.disconnected]

    def advance(self, seconds: float) -> None:
        """Let time pass, a second at a time, and `flush` after each. Raises ValueError below 0."""
        if seconds < 0:
            raise ValueError(f"time does not go back: {seconds} seconds")
        self.flush()
        while seconds > 0:
            self.reactor.advance(min(seconds, 1.0))
            self.flush()
            seconds -= 1.0

    def cut(self) -> None:
        """Break all connections, as a network does: what was on its way is lost; a client may come again."""
        for wire in self._wires:
            for transport in (wire.clientIO, wire.serverIO):
                transport.stream.clear()
                transport.disconnectReason = ConnectionLost()
                transport.loseConnection()
        self.flush()

    def close(self) -> None:
        """End the server: what clients still wait for fails with ConnectionError. May be called again."""
        self._factory.drain()
        self._factory.break_all()
        self.flush()
        self._exits.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @cached_property
    def jobs(self) -> Jobs:
        """The server's own queue, for its operations."""
        state = State(self._directory, self.reactor.seconds)
        self._exits.callback(state.close)
        worker = Immediate()
        jobs = Jobs(
            self.reactor,
            state,
            Compression(self._jail, 0),
            pool=worker,
            disk=worker,
            now=self.reactor.seconds,
            cores=1,
            ended=lambda: None,
        )
        jobs.start()
        self._exits.callback(jobs.stop)
        return jobs

    def _connect(self, factory: IProtocolFactory) -> IProtocol | None:
        """Join two protocols; None where either side wants none."""
        near, far = (IPv4Address("TCP", _HOST, port) for port in (_CLIENT_PORT, _SERVER_PORT))
        server = self._factory.buildProtocol(near)
        client = None if server is None else factory.buildProtocol(far)
        if client is None:
            return None
        transports = FakeTransport(client, False, near, far), FakeTransport(server, True, far, near)
        self._wires.append(IOPump(client, server, *transports, debug=False, clock=self.reactor))
        server.makeConnection(transports[1])
        client.makeConnection(transports[0])
        return client


@implementer(IStreamClientEndpoint)
class _Endpoint:
    """Connects in memory."""

    def __init__(self, connect: Callable[[IProtocolFactory], IProtocol | None]) -> None:
        self._connect = connect

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Connect at once; fails when the server has ended."""
        protocolFactory.doStart()
        protocol = self._connect(protocolFactory)
        return fail(NotAccepted()) if protocol is None else succeed(protocol)
