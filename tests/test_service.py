"""The service as twistd and twist see it: options, log, signals, exit status."""

from __future__ import annotations

import io
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from twisted.application.service import Application, IService
from twisted.application.twist._options import TwistOptions
from twisted.logger import ILogObserver, Logger, globalLogPublisher
from twisted.python.components import Componentized
from twisted.scripts._twistd_unix import ServerOptions
from twisted.trial.unittest import SynchronousTestCase

from fileexport.config import OPTIONS, Settings
from fileexport.service import (
    Daemon,
    Options,
    is_twistd,
    keep_out_of_root,
    logs_itself,
    makeService,
    quit_with,
)
from tests.machine import Machine, let_threads_go
from tests.test_notify import Manager


class Terminal(io.StringIO):
    """A stream that people read."""

    def isatty(self) -> bool:
        return True


class Case(SynchronousTestCase):
    """Has a root and an environment without us; what is said at the end is in `stderr`."""

    def setUp(self) -> None:
        self.base = Path(self.mktemp()).absolute()
        self.root = self.base / "root"
        self.root.mkdir(parents=True)
        self.stderr = io.StringIO()
        # A daemon blocks signals until it can take them.
        self.addCleanup(
            signal.pthread_sigmask, signal.SIG_SETMASK, signal.pthread_sigmask(signal.SIG_BLOCK, ())
        )
        self.patch(os, "environ", {"HOME": str(self.base)})
        self.patch(sys, "__stderr__", self.stderr)

    def options(self, *words: str, parent: Any = None) -> Options:
        """The options of a command line, the root among them."""
        options = Options()
        options.parent = parent
        options.parseOptions(["--root", str(self.root), *words])
        return options

    def settings(self, *words: str) -> Settings:
        """What these words mean."""
        prepared = self.options(*words).prepared
        assert prepared is not None
        return prepared.settings

    def ends(self, status: int, function: Callable[..., object], *args: object) -> list[str]:
        """The lines with which the process ends, with that status."""
        end = self.assertRaises(SystemExit, function, *args)
        self.assertEqual(end.code, status)
        lines = self.stderr.getvalue().splitlines()
        for line in lines:
            self.assertTrue(line.startswith("fileexport: "), line)
        return [line.removeprefix("fileexport: ") for line in lines]

    def daemon(self, machine: Machine, *words: str, own_log: bool = False, mistake: int = 1) -> Daemon:
        """The daemon of these options on a machine in memory."""
        prepared = self.options(*words).prepared
        assert prepared is not None
        return Daemon(machine, prepared, own_log=own_log, mistake=mistake)


class OptionsTests(Case):
    """The command line behind `twistd fileexport`."""

    def test_spellings(self) -> None:
        """Values stand behind a space or an equals sign; the short form of the port is -p."""
        for words in (["-p", "1"], ["-p1"], ["--port", "1"], ["--port=1"]):
            self.assertEqual(self.settings(*words).port, 1, words)

    def test_aliases(self) -> None:
        """Spellings with an underscore are accepted where they are promised."""
        for words in (
            ["--address_filter", "10.0.0.0/8", "--max_connections", "3"],
            ["--address_filter=10.0.0.0/8", "--max_connections=3"],
            ["--address-filter", "10.0.0.0/8", "--max-connections", "3"],
        ):
            found = self.settings(*words)
            self.assertEqual(found.address_filter, (ip_network("10.0.0.0/8"),))
            self.assertEqual(found.max_connections, 3)

    def test_values_stay(self) -> None:
        """A value that looks like such a spelling is left as it is."""
        found = self.settings("--log-file=--max_connections").log_file
        self.assertEqual(found, str(Path("--max_connections").absolute()))

    def test_repeated(self) -> None:
        """Options that may be repeated collect; of others the last one counts."""
        found = self.settings("--http", "unix:/a", "-p", "1", "--http", "unix:/b", "-p", "2")
        self.assertEqual((found.http, found.port), (("unix:/a", "unix:/b"), 2))

    def test_flags(self) -> None:
        """Flags stand alone, and are off without being named."""
        self.assertFalse(self.settings().hidden)
        found = self.settings("--hidden", "--insecure-plaintext")
        self.assertTrue(found.hidden and found.insecure_plaintext)

    def test_every_option(self) -> None:
        """The help names every option of the table, and asking for it is no mistake."""
        stdout = io.StringIO()
        self.patch(sys, "stdout", stdout)
        self.assertEqual(self.assertRaises(SystemExit, Options().parseOptions, ["--help"]).code, 0)
        for option in OPTIONS:
            self.assertIn(f"--{option.name}", stdout.getvalue())

    def test_unknown(self) -> None:
        """What is no option is one line, and status 1; a token that was typed is not repeated."""
        for words, line in (
            (["--colour", "blue"], "option --colour not recognized"),
            (["-x"], "option -x not recognized"),
            (["--port"], "option --port requires argument"),
            (["here"], "'here' is no option; the directory goes behind --root"),
            (["fex1_secret"], "this value is no option; the directory goes behind --root"),
        ):
            self.stderr.truncate(self.stderr.seek(0))
            self.assertEqual(self.ends(1, self.options, *words), [line])

    def test_all_mistakes(self) -> None:
        """All mistakes are named at once, one line each, with status 1."""
        lines = self.ends(1, self.options, "-p", "x", "--anonymous", "some", "--private-key", "none.pem")
        self.assertEqual(
            [line.partition(":")[0] for line in lines], ["--port", "--anonymous", "--private-key"]
        )

    def test_environment(self) -> None:
        """The environment counts where no flag does."""
        os.environ["FILEEXPORT_SERVER_PORT"] = "1"
        self.assertEqual(self.settings().port, 1)
        self.assertEqual(self.settings("-p", "2").port, 2)

    def test_not_parsed(self) -> None:
        """Without parsed options there is no service."""
        self.assertRaises(RuntimeError, makeService, Options())

    def test_through_twistd(self) -> None:
        """twistd finds the options by the plugin, and hands its own on."""
        twistd = ServerOptions()
        twistd.parseOptions(["-n", "fileexport", "--root", str(self.root), "--max_connections", "1"])
        self.assertIsInstance(twistd.subOptions, Options)
        self.assertEqual(twistd.subOptions.prepared.settings.max_connections, 1)
        self.assertTrue(is_twistd(twistd.subOptions.parent))


class TwistdFilesTests(Case):
    """twistd's own files stay out of the exported root."""

    def twistd(self, **given: object) -> ServerOptions:
        """twistd's options, started in the root where nothing else is said."""
        twistd = ServerOptions()
        twistd.update({"rundir": str(self.root), **given})
        return twistd

    def test_foreground(self) -> None:
        """In the foreground the pid file is left out when it would lie in the root."""
        inside, outside = self.twistd(nodaemon=True), self.twistd(nodaemon=True, rundir=str(self.base))
        for twistd in (inside, outside):
            keep_out_of_root(twistd, str(self.root))
        self.assertEqual((inside["pidfile"], outside["pidfile"]), ("", "twistd.pid"))

    def test_detached(self) -> None:
        """A detached twistd that would write its pid file or its log into the root ends with one line."""
        pidfile, logfile = str(self.base / "pid"), str(self.base / "log")
        for given, words in (
            (
                {"logfile": logfile},
                "its pid file twistd.pid would lie in the exported root; add --pidfile=FILE",
            ),
            ({"pidfile": pidfile}, "its log twistd.log would lie in the exported root; add --logfile=FILE"),
            ({"pidfile": "a/b", "logfile": logfile}, "its pid file a/b would lie in the exported root"),
        ):
            self.stderr.truncate(self.stderr.seek(0))
            (line,) = self.ends(1, keep_out_of_root, self.twistd(**given), str(self.root))
            self.assertTrue(line.startswith(f"twistd: {words}"), line)

    def test_detached_elsewhere(self) -> None:
        """A detached twistd whose files lie elsewhere, or that writes none, is left alone."""
        for given in (
            {"pidfile": str(self.base / "pid"), "logfile": "../log"},
            {"pidfile": "", "syslog": True},
            {"pidfile": "", "logger": "package.observer"},
            {"rundir": str(self.base)},
        ):
            twistd = self.twistd(**given)
            before = dict(twistd)
            keep_out_of_root(twistd, str(self.root))
            self.assertEqual(dict(twistd), before)

    def test_twist(self) -> None:
        """twist has no such files."""
        keep_out_of_root(None, str(self.root))
        keep_out_of_root(TwistOptions(), str(self.root))


class LogTests(Case):
    """Who writes the log."""

    def test_whose(self) -> None:
        """Ours in the foreground; twistd's where it was told so or detaches; twist keeps its own."""
        for given, ours in (
            ({"nodaemon": True}, True),
            ({"nodaemon": True, "logfile": "-"}, False),
            ({"nodaemon": True, "syslog": True}, False),
            ({"nodaemon": True, "logger": "package.observer"}, False),
            ({"nodaemon": False}, False),
        ):
            twistd = ServerOptions()
            twistd.update(given)
            self.assertIs(logs_itself(twistd), ours, given)
        self.assertFalse(logs_itself(TwistOptions()))
        self.assertFalse(logs_itself(None))

    def application(self, *words: str, **twistd: object) -> tuple[IService, ILogObserver | None]:
        """The service as twistd makes it, and the observer that it left for twistd."""
        parent = ServerOptions()
        parent.update(twistd)
        service = makeService(self.options(*words, parent=parent))
        application = Application("fileexport")
        service.setServiceParent(application)
        assert isinstance(application, Componentized)
        return service, application.getComponent(ILogObserver, None)

    def test_to_stderr(self) -> None:
        """In the foreground our observer writes to stderr, without twistd's words on its own start."""
        self.patch(sys, "stderr", io.StringIO())
        observer = self.application(nodaemon=True)[1]
        assert observer is not None
        Logger("anything", observer=observer).info("hello")
        Logger("twisted.scripts._twistd_unix.UnixAppLogger", observer=observer).info("twistd starting up.")
        assert isinstance(sys.stderr, io.StringIO)
        (line,) = sys.stderr.getvalue().splitlines()
        self.assertTrue(line.endswith(" [info] hello"), line)

    def test_to_file(self) -> None:
        """With --log-file the observer writes there, also where twistd would log itself."""
        log = self.base / "log"
        for nodaemon in (True, False):
            words = ("--log-file", str(log), "--log-format", "json")
            observer = self.application(
                *words, nodaemon=nodaemon, pidfile="", logfile=str(self.base / "twistd.log")
            )[1]
            assert observer is not None
            Logger("anything", observer=observer).info("hello")
        self.assertEqual(log.read_text().count('"message":"hello"'), 2)

    def test_left_to_twistd(self) -> None:
        """Where twistd keeps the log it is given no observer."""
        self.assertIsNone(self.application(nodaemon=True, syslog=True)[1])

    def test_twist(self) -> None:
        """Under twist our log is written beside twist's own."""
        log = self.base / "log"
        service = makeService(self.options("--log-file", str(log)))
        assert isinstance(service, Daemon)
        self.addCleanup(globalLogPublisher.removeObserver, service.observer)
        Logger("anything").info("hello")
        self.assertIn("hello", log.read_text())

    def test_cannot_be_opened(self) -> None:
        """A log file that cannot be opened is one line."""
        words = ("--log-file", f"{self.base}/none/log")
        self.assertEqual(
            self.ends(1, self.application, *words),
            [f"--log-file: {self.base}/none/log: No such file or directory"],
        )

    def test_token(self) -> None:
        """The generated token is printed on a terminal, and nowhere else; one of a file never."""
        for stream in (Terminal(), io.StringIO()):
            self.patch(sys, "stderr", stream)
            self.daemon(Machine())
            (file,) = self.base.glob(".local/state/fileexport/*/token")
            wanted = f"the generated token: {file.read_text().split()[0]}\n" if stream.isatty() else ""
            self.assertEqual(stream.getvalue(), wanted)
        self.patch(sys, "stderr", terminal := Terminal())
        self.daemon(Machine(), "--token-file", str(file))
        self.assertEqual(terminal.getvalue(), "")


class DaemonTests(Case):
    """The daemon as a process."""

    def test_busy(self) -> None:
        """A port in use ends the process with one line and status 1, however it was started."""
        for mistake in (1, 2):
            self.stderr.truncate(self.stderr.seek(0))
            daemon = self.daemon(Machine(8001), "-p", "8001", mistake=mistake)
            (line,) = self.ends(1, daemon.privilegedStartService)
            self.assertEqual(
                line,
                "cannot listen on 127.0.0.1:8001: the address is in use (is another fileexport running?"
                " --http and --transfer can choose another)",
            )

    def test_exposed(self) -> None:
        """Listeners that must not be end it with a line each, and the status for mistakes."""
        for mistake in (1, 2):
            self.stderr.truncate(self.stderr.seek(0))
            daemon = self.daemon(Machine(), "--http", "tcp:1", "--http", "tcp:2", mistake=mistake)
            self.assertEqual(len(self.ends(mistake, daemon.privilegedStartService)), 2)

    def test_several_lines(self) -> None:
        """Every line names the program."""
        self.assertEqual(self.ends(3, lambda: quit_with("a", "b", status=3)), ["a", "b"])

    def serving(self, *words: str, own_log: bool = False) -> Machine:
        """A machine on which the daemon runs and has taken the signals."""
        signals = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        for number in signals:
            self.addCleanup(signal.signal, number, signal.getsignal(number))
        let_threads_go(self)
        machine = Machine()
        # A state for each: two daemons do not share one.
        state = tempfile.mkdtemp(dir=self.base)
        daemon = self.daemon(machine, "--state", state, *words, own_log=own_log)
        daemon.privilegedStartService()
        daemon.startService()
        machine.begin()
        machine.finish(daemon.begun)
        self.addCleanup(self.end, daemon, machine)
        return machine

    def end(self, daemon: Daemon, machine: Machine) -> None:
        done = daemon.stopService()
        machine.advance(0)
        machine.finish(done)
        self.successResultOf(done)

    def test_banner(self) -> None:
        """Where the log is a file the banner is on the terminal as well."""
        log = self.base / "log"
        self.serving("--log-file", str(log), own_log=True)
        self.assertEqual(self.stderr.getvalue().splitlines()[0], f"exporting {self.root}")
        self.serving()
        self.assertEqual(self.stderr.getvalue().count(f"exporting {self.root}"), 1)

    def test_stop(self) -> None:
        """SIGTERM and SIGINT stop the reactor, from the reactor's own turn."""
        for number in (signal.SIGTERM, signal.SIGINT):
            machine = self.serving()
            os.kill(os.getpid(), number)
            self.assertFalse(machine.hasStopped)
            while not machine.hasStopped:
                machine.turn()

    def test_reload(self) -> None:
        """SIGHUP opens the log file again and does not stop the daemon."""
        log = self.base / "log"
        machine = self.serving("--log-file", str(log), own_log=True)
        log.rename(self.base / "log.1")
        os.kill(os.getpid(), signal.SIGHUP)
        while not log.exists():
            machine.turn()
        self.assertFalse(machine.hasStopped)

    def manager(self) -> Manager:
        """A service manager that waits for signs of life every two seconds."""
        manager = Manager(self)
        os.environ.update(NOTIFY_SOCKET=manager.address, WATCHDOG_USEC="2000000")
        return manager

    def test_service_manager(self) -> None:
        """It hears when the daemon serves, that its reactor turns, and when a reload begins and ends."""
        manager = self.manager()
        machine = self.serving()
        ready, *signs = manager.heard()
        status = f"exporting {self.root}: HTTP on http://127.0.0.1:"
        self.assertTrue(ready.startswith(f"READY=1\nSTATUS={status}"), ready)
        self.assertEqual(signs, ["WATCHDOG=1"])
        machine.advance(1)
        self.assertEqual(manager.heard(), ["WATCHDOG=1"])
        os.kill(os.getpid(), signal.SIGHUP)
        heard: list[str] = []
        while len(heard) < 2:
            machine.turn()
            heard += manager.heard()
        begin, end = heard
        self.assertEqual((begin.partition("\n")[0], end), ("RELOADING=1", "READY=1"))

    def test_not_ready(self) -> None:
        """It hears nothing before the reactor runs, but that the daemon stops."""
        manager, machine = self.manager(), Machine()
        daemon = self.daemon(machine)
        let_threads_go(self)
        daemon.startService()
        machine.finish(daemon.begun)
        self.assertEqual(manager.heard(), [])
        self.end(daemon, machine)
        self.assertEqual(manager.heard(), ["STOPPING=1\nSTATUS=stopping"])
