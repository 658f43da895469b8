"""The service as a process: options, `makeService` for twistd and twist, log, signals, exit status.

Three habits of twistd are put right here: SIGTERM ends with status 0, a listener that cannot be opened is
fatal with one line, and no pid file lands in the exported root.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any, ClassVar, NoReturn

from twisted.application.service import IService, IServiceCollection
from twisted.internet.defer import Deferred
from twisted.internet.error import ReactorNotRunning
from twisted.logger import (
    FilteringLogObserver,
    ILogObserver,
    LogLevel,
    LogLevelFilterPredicate,
    globalLogBeginner,
    globalLogPublisher,
)
from twisted.python import usage
from twisted.python.components import Componentized

from fileexport.assembly import ExportService
from fileexport.config import OPTIONS, Settings, describe
from fileexport.embedded import EmbeddedService, application_log
from fileexport.errors import ConfigurationError, ListenError, StateError, row_for
from fileexport.listening import IN_USE
from fileexport.logs import LogSink, observer
from fileexport.notify import Notifier
from fileexport.option_values import shown
from fileexport.startup import Prepared, is_inside, prepare, prepare_settings

#: The exit status for mistakes in the options, and for a listener that cannot be opened.
MISTAKE = 1
#: The signals that end the daemon.
STOPPING = (signal.SIGTERM, signal.SIGINT)
#: Descriptors for each connection that may be open: its own, its file's, and room for all the rest.
DESCRIPTORS = 3
_OTHER_ADDRESS = " (is another fileexport running? --http and --transfer can choose another)"
_ALIASES = {f"--{alias}": f"--{option.name}" for option in OPTIONS for alias in option.aliases}


class Options(usage.Options):
    """The options of `twistd fileexport` and `twist fileexport`, made from the one table.

    All mistakes are printed, one line each, and end the process with status 1: a usage error of Twisted's
    own would print the whole help as well, and name only the first.
    """

    longdesc: ClassVar[str] = (
        "Export one directory over HTTP and a transfer protocol. Options are variables and TOML keys too."
    )

    optFlags: ClassVar[list[list[Any]]] = [
        [option.name, option.short or None, describe(option)] for option in OPTIONS if option.flag
    ]

    def __init__(self) -> None:
        super().__init__()
        self.given: dict[str, list[str]] = {}
        self.prepared: Prepared | None = None

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """Read the command line. Ends the process where it has mistakes."""
        words = sys.argv[1:] if options is None else options
        try:
            # Twisted knows long names with dashes only.
            super().parseOptions([_without_alias(word) for word in words])
        except usage.UsageError as error:
            quit_with(str(error), status=MISTAKE)

    def parseArgs(self, *words: str) -> None:
        """No words beside the options."""
        if words:
            raise usage.UsageError(f"{shown(words[0])} is no option; the directory goes behind --root")

    def postOptions(self) -> None:
        """Read the files that the options name."""
        flags: dict[str, Sequence[str] | bool] = dict(self.given)
        flags.update({option.name: bool(self[option.name]) for option in OPTIONS if option.flag})
        try:
            self.prepared = prepare(flags, os.environ)
        except ConfigurationError as error:
            quit_with(*error.problems, status=MISTAKE)
        keep_out_of_root(self.parent, self.prepared.settings.root)


def _add_option(name: str, names: Sequence[str], meaning: str) -> None:
    """Give `Options` one option with a value, as usage.Options finds them: by method."""

    def take(self: Options, value: str) -> None:
        self.given.setdefault(name, []).append(value)

    take.__doc__ = meaning
    for spelling in names:
        setattr(Options, "opt_" + spelling.lstrip("-").replace("-", "_"), take)


for _option in OPTIONS:
    if not _option.flag:
        _add_option(
            _option.name, [_option.name] + ([_option.short] if _option.short else []), describe(_option)
        )


def _without_alias(word: str) -> str:
    name, equals, value = word.partition("=")
    return _ALIASES.get(name, name) + equals + value


def makeService(options: Options) -> IService:
    """The service for twistd and twist (`IServiceMaker`)."""
    from twisted.internet import reactor

    if options.prepared is None:
        raise RuntimeError("the options were not parsed")
    prepared, parent = options.prepared, options.parent
    own_log = prepared.settings.log_file is not None or logs_itself(parent)
    daemon = Daemon(reactor, prepared, own_log=own_log)
    if own_log and not is_twistd(parent):
        # twist offers no place for an observer: it keeps its log, and ours is written beside it.
        globalLogPublisher.addObserver(daemon.observer)
    return daemon


def make_service(settings: Settings, *, reactor: Any = None, token: str | None = None) -> EmbeddedService:
    """The daemon for an application's own parent: an `IService` that touches nothing of the process.

    It takes no signals, raises no limit, and logs by `twisted.logger` only: `settings.log_file` is refused,
    and so is `settings.config`, which nobody reads. `reactor=None` means the global one. `token` may do
    everything, beside those of `settings.token_file`; without either, one is generated as the daemon does it.

    Raises `ConfigurationError` with one line for each mistake. A listener that cannot be opened is a
    `ListenError` of `startService`.
    """
    refused = [name for name in ("log_file", "config") if getattr(settings, name) is not None]
    if refused:
        raise ConfigurationError(*(f"{name}: this is the business of the application" for name in refused))
    if reactor is None:
        from twisted.internet import reactor
    return EmbeddedService(reactor, prepare_settings(settings, os.environ, token))


def run(prepared: Prepared, ready: Callable[[], None] = lambda: None) -> None:
    """Run the daemon in this process until it is stopped; `ready` is called when it listens.

    Ends the process where it cannot start: with 2 for a mistake in the options, 1 for a listener.
    """
    from twisted.internet import reactor

    daemon = Daemon(reactor, prepared, own_log=True, mistake=2)
    globalLogBeginner.beginLoggingTo([daemon.observer], redirectStandardIO=False, discardBuffer=True)
    daemon.privilegedStartService()
    daemon.startService()
    reactor.callWhenRunning(ready)
    reactor.addSystemEventTrigger("before", "shutdown", daemon.stopService)
    reactor.run()


class Daemon(ExportService):
    """`ExportService` as the process's own: it takes the signals, writes the log and sets the exit status.

    It also tells the service manager, where there is one, how it is.
    """

    def __init__(self, reactor: Any, prepared: Prepared, *, own_log: bool, mistake: int = MISTAKE) -> None:
        self._core = reactor
        self._mistake = mistake
        self._own_log = own_log
        self._notifier = Notifier(os.environ)
        sink = open_log(prepared, mistake) if own_log else application_log()
        self.observer = _quiet(observer(sink, prepared.settings.log_format.value))
        self._elsewhere = prepared.settings.log_file is not None
        allow_descriptors(DESCRIPTORS * prepared.settings.max_concurrent)
        super().__init__(
            reactor, prepared, sink, stop=lambda: reactor.callLater(0, self._end), say=self._tell
        )
        _show_token(prepared)

    def setServiceParent(self, parent: IServiceCollection) -> None:
        """Give twistd our observer: it asks its application for one."""
        super().setServiceParent(parent)
        if self._own_log and isinstance(parent, Componentized):
            parent.setComponent(ILogObserver, self.observer)

    def privilegedStartService(self) -> None:
        """Open the listeners, or end the process with one line."""
        # From here until the reactor runs a stop waits: it would end the process in the middle of a start.
        signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
        try:
            super().privilegedStartService()
        except ConfigurationError as error:
            quit_with(*error.problems, status=self._mistake)
        except ListenError as error:
            hint = _OTHER_ADDRESS if str(error).endswith(IN_USE) else ""
            quit_with(f"{error}{hint}", status=row_for(error).exit)

    def startService(self) -> None:
        """Begin to serve; the signals are ours as soon as the reactor runs."""
        # Before the banner: who has read it may send a signal.
        self._core.callWhenRunning(self._take_signals)
        self._core.addSystemEventTrigger("after", "shutdown", self._leave)
        try:
            super().startService()
        except StateError as error:
            quit_with(str(error), status=row_for(error).exit)
        self._core.callWhenRunning(self._tell_ready)

    def reload(self) -> None:
        """Read files again, and say when that begins and ends."""
        self._notifier.reloading()
        try:
            super().reload()
        finally:
            self._notifier.ready()

    def stopService(self) -> Deferred[None]:
        """Finish what is in flight, and say so."""
        self._notifier.stopping()
        return super().stopService()

    def _tell_ready(self) -> None:
        self._notifier.ready(f"exporting {self._settings.root}: {', '.join(self._places())}")
        # Until the process ends: a stop that hangs is the watchdog's business too.
        self._notifier.watch(self._core)

    def _tell(self, line: str) -> None:
        """Say a line of the banner: in the log, and on the terminal where the log is elsewhere."""
        self._log.info("{line}", line=line)
        if self._elsewhere:
            # Not sys.stderr: under twistd that is the log.
            print(line, file=sys.__stderr__, flush=True)

    def _take_signals(self) -> None:
        """Stop with status 0 on SIGTERM and SIGINT, at once on the second; read files again on SIGHUP.

        Installed when the reactor runs: its own handlers, which it has just set, end the process with the
        signal's status.
        """
        for number in STOPPING:
            signal.signal(number, self._on_stop)
        signal.signal(signal.SIGHUP, lambda number, frame: self._from_signal(self.reload))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)

    def _on_stop(self, number: int, frame: FrameType | None) -> None:
        for either in STOPPING:
            signal.signal(either, lambda number, frame: os._exit(128 + number))
        self._from_signal(self._end)

    def _end(self) -> None:
        """Stop the reactor, unless a client, a signal or the last connection has done so already."""
        with suppress(ReactorNotRunning):
            self._core.stop()

    def _leave(self) -> None:
        """End the process although a thread is still at work: nobody waits for what it does.

        What it was writing lies in staging, without a name, and goes at the next start.
        """
        if self.abandoned:
            self._sink.close()
            os._exit(0)

    def _from_signal(self, function: Callable[[], object]) -> None:
        self._core.callFromThread(function)


def allow_descriptors(count: int) -> None:
    """Raise the soft limit of open descriptors to `count`, or as near as the hard limit lets us."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count if hard == resource.RLIM_INFINITY else min(count, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _show_token(prepared: Prepared) -> None:
    # Never in the log, where others may read it later.
    if prepared.generated and sys.stderr.isatty():
        print(f"the generated token: {prepared.token()}", file=sys.stderr, flush=True)


def _quiet(inner: ILogObserver) -> ILogObserver:
    """Leave out what Twisted says of its own start and end: the banner says it, an error stands alone."""
    levels = LogLevelFilterPredicate(defaultLogLevel=LogLevel.debug)
    for namespace in ("twisted.scripts._twistd_unix", "twisted.internet", "twisted.web", "log_legacy"):
        levels.setLogLevelForNamespace(namespace, LogLevel.warn)
    return FilteringLogObserver(inner, [levels])


def open_log(prepared: Prepared, mistake: int) -> LogSink:
    """The log file, or standard error. Ends the process with one line where it cannot be opened."""
    settings = prepared.settings
    if settings.log_file is None:
        return LogSink.to_stream(sys.stderr, form=settings.log_format.value)
    try:
        return LogSink.to_file(
            settings.log_file, settings.log_size, settings.log_keep, form=settings.log_format.value
        )
    except OSError as error:
        quit_with(f"--log-file: {settings.log_file}: {error.strerror}", status=mistake)


def is_twistd(parent: Any) -> bool:
    """Whether these are the options of twistd, and not of twist."""
    return parent is not None and "pidfile" in parent


def logs_itself(parent: Any) -> bool:
    """Whether the log is ours to write where no `--log-file` is given.

    It is twistd's or twist's where they were told so (`--logfile`, `--syslog`, `--logger`), and where twistd
    detaches: our standard error is gone then.
    """
    if not is_twistd(parent):
        return False
    return bool(parent["nodaemon"]) and not (parent["logfile"] or parent["logger"] or parent["syslog"])


def keep_out_of_root(parent: Any, root: str) -> None:
    """Keep twistd's own files out of the exported root: its pid file, and its log where it detaches.

    In the foreground nobody needs the pid file, so it is not written. A detached twistd that would write
    into the root ends with one line.
    """
    if not is_twistd(parent):
        return
    pidfile = parent["pidfile"]
    inside = bool(pidfile) and is_inside(Path(parent["rundir"], pidfile), root)
    if parent["nodaemon"]:
        if inside:
            parent["pidfile"] = ""
        return
    if inside:
        quit_with(
            f"twistd: its pid file {pidfile} would lie in the exported root; add --pidfile=FILE",
            status=MISTAKE,
        )
    logs = parent["logfile"] or "twistd.log"
    if not parent["logger"] and not parent["syslog"] and is_inside(Path(parent["rundir"], logs), root):
        quit_with(
            f"twistd: its log {logs} would lie in the exported root; add --logfile=FILE", status=MISTAKE
        )


def quit_with(*lines: str, status: int) -> NoReturn:
    """End the process with one line for each mistake on standard error, which twistd may have replaced."""
    for line in lines:
        print(f"fileexport: {line}", file=sys.__stderr__, flush=True)
    raise SystemExit(status)
