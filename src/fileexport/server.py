"""The embedded daemon: a `Server` object for programs that have no reactor, or another one."""

from __future__ import annotations

import os
import re
import socket as sockets
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import Any

from fileexport.config import OPTIONS, Settings
from fileexport.embedded import EmbeddedService
from fileexport.endpoints import tls_context
from fileexport.errors import ConfigurationError, ListenError, StateError
from fileexport.option_values import NO_ENDPOINT, SHARED_ENDPOINT, parse_chunk_size, parse_port, parse_size
from fileexport.reactor_thread import Latch, ReactorEnded, ReactorThread
from fileexport.startup import prepare_settings, temporary_state
from fileexport.tokens import check_token

#: Where it listens when no port is given.
DEFAULT_PORT = 6768
#: The fields of `Settings` that are parameters of a server's own, or an application's business.
_OWN = frozenset(
    """
    config file_size_limit http log_file log_keep log_size max_chunk_size min_chunk_size port private_key root
    state transfer transfer_port
    """.split()
)
#: What options are called here; the others are fields of `settings`.
_NAMES = {
    "root": "root_directory",
    "state": "state_directory",
    "http": "http",
    "private-key": "private_key",
    "file-size-limit": "file_size_limit",
}
_FIELDS = {option.name: _NAMES.get(option.name, f"settings.{option.field}") for option in OPTIONS}
#: Where a line of `startup`, `config` and `listening` names options, all else being what a user has given: at
#: its beginning, and in the advice at its end.
_BEGINNING = re.compile(r"\A--([a-z-]+)")
_ADVICE = re.compile(
    r"(?:; give --state DIR|: --state gives this one its own| move it, or choose with --dir"
    r"| give --private-key, or --insecure-plaintext to have it so"
    r"|(?<=: needs the HTTP side, and )--http leaves that out)\Z"
)


class Server:
    """Exports one directory, in a thread of its own with a reactor of its own.

    - `root_directory`: what is exported. `token`: who has it may do everything; ValueError as `check_token`.
    - `private_key`: PEM text of key and certificate, as the second of `generate_keys()`; ValueError
      otherwise. With it everything is TLS, without it only this machine is listened to.
    - `file_size_limit`: the largest file in bytes that is taken. `chunk_size_range`: the smallest and the
      largest chunk in bytes that a client may choose, 512 to 1,048,576.
    - `http`: the HTTP side answers on the same port as well.
    - `state_directory`: where jobs and what is known of files are kept from one run to the next; only one
      server at a time may have it. None: a temporary directory, so that jobs live as long as the run.
    - `settings`: the daemon's other options, such as `anonymous`, `dirs` or `token_file`, whose tokens count
      beside `token`; ValueError where it has one that is a parameter here, or the application's business
      (`log_file`).

    A run begins by `run` or `start`, and ends by `terminate`; another one may follow. Any number of servers
    may run at a time, beside any reactor or event loop. All is logged by `twisted.logger`; neither signals
    nor limits of the process are touched: for thousands of connections, raise RLIMIT_NOFILE. The thread is
    daemonic: a program that ends does not wait for it.

    All methods may be called in any thread, `terminate` in a signal handler as well.
    """

    def __init__(
        self,
        root_directory: str | os.PathLike[str],
        token: str,
        private_key: str | None = None,
        *,
        file_size_limit: int = 1 << 40,
        chunk_size_range: tuple[int, int] = (512, 1 << 20),
        http: bool = False,
        state_directory: str | os.PathLike[str] | None = None,
        settings: Settings | None = None,
    ) -> None:
        check_token(token)
        self._token = token
        self._tls = None if private_key is None else tls_context(private_key)
        self._http = http
        self._state = None if state_directory is None else os.fspath(state_directory)
        self._settings = settings or Settings()
        _check_extras(self._settings)
        # Reentrant, for signal handlers that run while their own thread is in here.
        self._lock = threading.RLock()
        self._run: _Run | None = None
        self.root_directory = root_directory
        self.file_size_limit = file_size_limit
        self.chunk_size_range = chunk_size_range

    # -- runs

    def run(
        self, port: int | None = None, address: str | None = None, *, socket: sockets.socket | None = None
    ) -> None:
        """Listen and serve; returns after `terminate`, when nothing of the run is left.

        - `port`: None: 6768, 0: one that is free.
        - `address`: of one interface, or a name of this machine; None: every interface with a private key,
          127.0.0.1 and ::1 without one; ``""``: every interface.
        - `socket`: a listening socket of the application's own (TCP or UNIX), which stays open; ValueError
          with port or address beside it. It becomes non-blocking.

        Raises RuntimeError, one sentence, where it runs already or cannot listen, which is also when it would
        listen to other machines without a private key. Nothing is left then. An exception in this thread, as
        by Ctrl-C, stops the server and propagates.
        """
        run = _Run()
        try:
            self._start(run, port, address, socket)
            run.join()
        except BaseException:
            # Nobody else's run, which may be why this one did not begin.
            run.end()
            raise

    def start(
        self, port: int | None = None, address: str | None = None, *, socket: sockets.socket | None = None
    ) -> None:
        """Do as `run` does, but return when it listens, or when it was terminated before."""
        self._start(_Run(), port, address, socket)

    def _start(self, run: _Run, port: int | None, address: str | None, socket: sockets.socket | None) -> None:
        if socket is not None and (port, address) != (None, None):
            raise ValueError("a socket stands in the place of port and address")
        number = DEFAULT_PORT if port is None else parse_port(str(port))
        try:
            with self._lock:
                self._check_idle()
                self._run = run
            run.begin(partial(self._service, number, address, socket))
        except (ConfigurationError, ListenError, StateError, OSError) as error:
            raise RuntimeError(_sentence(error)) from error
        finally:
            run.begun.set()

    def join(self) -> None:
        """Wait until the run has ended; returns at once where there is none.

        Raises RuntimeError in a callback of its own, in whose thread it runs.
        """
        if (run := self._run) is not None:
            run.join()

    def terminate(self) -> None:
        """Stop, breaking off what is in flight, and do not wait; a run that only begins stops as well.

        A file that was being uploaded is not there afterwards. A thread that waits for a disk is waited for
        five seconds, and left behind then. Raises RuntimeError when it is not running; until it has ended,
        another call does nothing.
        """
        with self._lock:
            if self._run is None or self._run.is_over:
                raise RuntimeError("the server is not running")
            self._run.terminate()

    @contextmanager
    def running(
        self, port: int | None = None, address: str | None = None, *, socket: sockets.socket | None = None
    ) -> Iterator[Server]:
        """For `with`: `start`, and at the end `terminate` and `join`."""
        self.start(port, address, socket=socket)
        try:
            yield self
        finally:
            with suppress(RuntimeError):  # a client has stopped it
                self.terminate()
            self.join()

    # -- how it is

    @property
    def is_running(self) -> bool:
        """Whether there is a run, from the call of `run` or `start` until nothing of it is left."""
        return self._run is not None and not self._run.is_over

    @property
    def addresses(self) -> tuple[tuple[str, int], ...]:
        """Where it listens by TCP, ``("127.0.0.1", 6768)``; of every interface ``0.0.0.0`` and ``::``."""
        return self._run.addresses if self._run is not None and self.is_running else ()

    @property
    def port(self) -> int:
        """The port that it listens on. Raises RuntimeError when there is none."""
        for _, port in self.addresses:
            return port
        raise RuntimeError("the server does not listen on a port")

    @property
    def root_directory(self) -> str:
        """What is exported. Setting it raises RuntimeError while the server runs, as the others do."""
        return self._root

    @root_directory.setter
    def root_directory(self, path: str | os.PathLike[str]) -> None:
        self._check_idle()
        self._root = os.fspath(path)

    @property
    def file_size_limit(self) -> int:
        """The largest file in bytes that is taken. Setting it raises ValueError where it is under 1."""
        return self._limit

    @file_size_limit.setter
    def file_size_limit(self, limit: int) -> None:
        self._check_idle()
        self._limit = parse_size(str(limit))

    @property
    def chunk_size_range(self) -> tuple[int, int]:
        """The smallest and the largest chunk in bytes. Setting it raises ValueError where they cannot be."""
        return self._chunks

    @chunk_size_range.setter
    def chunk_size_range(self, sizes: tuple[int, int]) -> None:
        self._check_idle()
        smallest, largest = (parse_chunk_size(str(size)) for size in sizes)
        if smallest > largest:
            raise ValueError(f"{smallest}, the smallest chunk, is larger than {largest}, the largest")
        self._chunks = smallest, largest

    def _check_idle(self) -> None:
        if self.is_running:
            raise RuntimeError("the server is running")

    # -- what a run needs

    def _service(
        self, port: int, address: str | None, given: sockets.socket | None, exits: ExitStack
    ) -> Callable[..., EmbeddedService]:
        """What makes the service of a run with a reactor; `exits` is closed when it is over."""
        interface = "" if address is None and self._tls is not None else address
        where: dict[str, Any] = {}
        if given is None:
            where["port" if self._http else "transfer_port"] = port
        if self._http:
            where["transfer"] = (SHARED_ENDPOINT,)
        else:
            where["http"] = (NO_ENDPOINT,)
        smallest, largest = self._chunks
        settings = replace(
            self._settings,
            root=self._root,
            state=self._state or exits.enter_context(temporary_state(self._root)),
            file_size_limit=self._limit,
            min_chunk_size=smallest,
            max_chunk_size=largest,
            **where,
        )
        prepared = prepare_settings(settings, {}, self._token, self._tls)
        return partial(
            EmbeddedService, prepared=prepared, sockets=[given] if given else (), interface=interface
        )


class _Run:
    """One run of a server: its thread, its service, and what goes with them.

    - `addresses`: where it listens by TCP, when it does. `begun`: set when it does, or never will.
    """

    def __init__(self) -> None:
        self.addresses: tuple[tuple[str, int], ...] = ()
        self._thread = ReactorThread("fileexport")
        self.begun = Latch()
        self._is_asked = False

    @property
    def is_over(self) -> bool:
        """Whether it has ended, and left nothing."""
        return self.begun.is_set and not self._thread.is_running

    def begin(self, prepare: Callable[[ExitStack], Callable[..., EmbeddedService]]) -> None:
        """Serve; returns when it listens. Raises what stands in the way; it is over then."""
        try:
            self._thread.start()
            if self._is_asked:
                self._thread.leave()
            self._thread.call(self._open, prepare)
        except ReactorEnded:
            self._thread.join()  # terminated before it listened
        except BaseException:
            self._thread.stop()
            raise

    def terminate(self) -> None:
        """Ask for the end."""
        self._is_asked = True
        self._thread.leave()

    def join(self) -> None:
        """Wait for the end; raises RuntimeError in its own thread."""
        if not self._thread.is_inside:
            self.begun.wait()
        self._thread.join()

    def end(self) -> None:
        """Ask for the end and wait for it, whatever it has come to."""
        self.begun.set()  # by us or never
        self.terminate()
        self.join()

    def _open(self, prepare: Callable[[ExitStack], Callable[..., EmbeddedService]]) -> None:
        # All in the thread, where no signal's handler interrupts it: what was begun is ended.
        reactor, exits = self._thread.reactor, ExitStack()
        reactor.addSystemEventTrigger("after", "shutdown", exits.close)
        service = prepare(exits)(reactor, ended=self._thread.leave)
        reactor.addSystemEventTrigger("before", "shutdown", service.interrupt)
        service.startService()
        self.addresses = tuple((str(address), port) for address, port in service.tcp_addresses)


def _check_extras(settings: Settings) -> None:
    """Refuse options that would be ignored. Raises ValueError."""
    defaults = Settings()
    refused = [name for name in sorted(_OWN) if getattr(settings, name) != getattr(defaults, name)]
    if refused:
        raise ValueError(f"settings: {', '.join(refused)} cannot be given here; see the server's parameters")


def _sentence(error: Exception) -> str:
    """One line for a programmer: where the daemon's names an option, it is a parameter here."""
    return "; ".join(_line(line) for line in str(error).splitlines())


def _line(line: str) -> str:
    advice = _ADVICE.search(line)
    end = advice.start() if advice else len(line)
    begins = _BEGINNING.sub(_parameter, line[:end])
    return begins + re.sub(r"--([a-z-]+)", _parameter, line[end:]).replace(" DIR", "")


def _parameter(found: re.Match[str]) -> str:
    return _FIELDS.get(found[1], found[0])
