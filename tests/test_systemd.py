"""The units in contrib/systemd: what they name is there, and systemd finds nothing wrong with them."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import msgspec
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from fileexport.assembly import DEFAULT_PORT, GRACE
from fileexport.config import DEFAULT_CONFIG, OPTIONS, Settings
from fileexport.errors import ConfigurationError
from fileexport.service import DESCRIPTORS, Options
from fileexport.startup import Prepared, prepare
from fileexport.tokens import generate_token

UNITS = Path(__file__).resolve().parent.parent / "contrib" / "systemd"
#: Of 10: the less, the less a service can do to the machine. The project's own promise.
MAX_EXPOSURE = 1.5
#: The first systemd that judges a file offline.
FIRST_VERSION = 250


def settings(name: str) -> dict[str, list[str]]:
    """The settings of a unit file, all sections together; a key may have several values.

    configparser keeps only the last of them, so the file is read by hand. Our units have no continued lines.
    """
    found: dict[str, list[str]] = {}
    for line in (UNITS / name).read_text(encoding="utf-8").splitlines():
        if line and line[0] not in "#;[":
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


class ServiceTests(SynchronousTestCase):
    """fileexport.service."""

    def setUp(self) -> None:
        self.unit = settings("fileexport.service")

    def only(self, key: str) -> str:
        """The one value of a key."""
        [value] = self.unit[key]
        return value

    def test_options(self) -> None:
        """Every option on the command line exists, and the configuration file is the one read by default."""
        program, *words = shlex.split(self.only("ExecStart"))
        self.assertEqual(Path(program).name, "twistd")
        start = words.index("fileexport")
        self.assertEqual(words[:start], ["-n", "--pidfile="])
        known = {f"--{option.name}" for option in OPTIONS}
        self.assertEqual({word for word in words[start:] if word.startswith("-")} - known, set())
        self.assertEqual(words[words.index("--config") + 1], DEFAULT_CONFIG)
        self.assertTrue(hasattr(Options, "opt_config"))

    def test_directories(self) -> None:
        """Configuration is looked for in the directory that the unit makes for it."""
        self.assertEqual(Path(DEFAULT_CONFIG).parent, Path("/etc", self.only("ConfigurationDirectory")))
        self.assertEqual(self.only("StateDirectoryMode"), "0700")

    def test_credential(self) -> None:
        """The credential has the name under which the daemon looks for it."""
        self.assertEqual(self.only("LoadCredential").partition(":")[0], "token")

    def test_time_to_stop(self) -> None:
        """systemd waits longer for the end than answers in flight may take."""
        self.assertGreater(float(self.only("TimeoutStopSec")), GRACE)

    def test_descriptors(self) -> None:
        """There are descriptors for all connections that the defaults permit."""
        self.assertGreaterEqual(int(self.only("LimitNOFILE")), DESCRIPTORS * Settings().max_concurrent)

    def test_kernel_answers(self) -> None:
        """The sandbox leaves what tells whose a connection is, and the sockets of all listeners."""
        families = set(self.only("RestrictAddressFamilies").split())
        self.assertEqual(families, {"AF_UNIX", "AF_INET", "AF_INET6", "AF_NETLINK"})
        self.assertNotIn("PrivateNetwork", self.unit)

    def test_tls(self) -> None:
        """The sandbox leaves memory for the callbacks of TLS, without which no key can be used."""
        self.assertNotIn("MemoryDenyWriteExecute", self.unit)

    def test_reload(self) -> None:
        """A reload is the signal on which the daemon reads its files again."""
        self.assertEqual(self.only("ExecReload"), "/bin/kill -HUP $MAINPID")


class CredentialTests(SynchronousTestCase):
    """The token file that systemd hands over."""

    def setUp(self) -> None:
        base = Path(self.mktemp()).absolute()
        self.root, credentials = base / "root", base / "credentials"
        for directory in (self.root, credentials):
            directory.mkdir(parents=True)
        self.environ = {"HOME": str(base), "CREDENTIALS_DIRECTORY": str(credentials)}
        self.path = credentials / "token"

    def start(self, *token_file: str) -> Prepared:
        """What a start reads."""
        return prepare({"root": [str(self.root)], "token-file": token_file}, self.environ)

    def test_precedence(self) -> None:
        """It is used where no --token-file is given; where it is not there, a token is generated."""
        self.assertTrue(self.start().generated)
        other = self.path.with_name("other")
        for path in (self.path, other):
            path.write_text(f"{generate_token()} name={path.name}\n")
            path.chmod(0o400)
        for words, path in (((), self.path), ((str(other),), other)):
            found = self.start(*words)
            self.assertEqual((found.token_path, len(found.tokens)), (path, 1))
            self.assertEqual((found.generated, found.credential), (False, not words))
            self.assertEqual(os.listdir(found.state), ["token"])  # the one of the first start
        self.environ["CREDENTIALS_DIRECTORY"] = "relative"
        self.assertTrue(self.start().generated)

    def test_mode(self) -> None:
        """Its mode may have the group's bit for reading, which is the mask of an ACL, and no other."""
        self.path.write_text(generate_token())
        self.path.chmod(0o440)
        self.assertEqual(len(self.start().read_tokens()), 1)
        self.assertRaises(ConfigurationError, self.start, str(self.path))
        for mode in (0o404, 0o420):
            self.path.chmod(mode)
            error = self.assertRaises(ConfigurationError, self.start)
            self.assertIn("the credential 'token'", str(error))

    def test_mistake(self) -> None:
        """A mistake in it stops the start; no other token takes its place."""
        self.path.write_text("short")
        self.path.chmod(0o400)
        self.assertRaises(ConfigurationError, self.start)


class SocketTests(SynchronousTestCase):
    """fileexport.socket."""

    def test_default_port(self) -> None:
        """It listens where the daemon would."""
        wanted = [f"{host}:{DEFAULT_PORT}" for host in ("127.0.0.1", "[::1]")]
        self.assertEqual(settings("fileexport.socket")["ListenStream"], wanted)

    def test_endpoints(self) -> None:
        """The line for the configuration takes each socket, by its place and family."""
        text = (UNITS / "fileexport.socket").read_text(encoding="utf-8")
        [line] = re.findall(r"^#   (http = .*)$", text, re.MULTILINE)
        streams = settings("fileexport.socket")["ListenStream"]
        families = ["INET6" if "[" in stream else "INET" for stream in streams]
        endpoints = [f"systemd:domain={family}:index={place}" for place, family in enumerate(families)]
        self.assertEqual(msgspec.toml.decode(line), {"http": endpoints})


class AnalyzeTests(SynchronousTestCase):
    """What systemd itself says, where it is installed; it need not run."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir()
        for unit in UNITS.iterdir():
            # The program of the unit is not installed here.
            text = re.sub(r"^(Exec\w+=)\S+", r"\1/bin/true", unit.read_text("utf-8"), flags=re.MULTILINE)
            (self.directory / unit.name).write_text(text, encoding="utf-8")

    def analyze(self, *words: str) -> tuple[int, str]:
        """The status of systemd-analyze, and all that it says."""
        program = shutil.which("systemd-analyze")
        if program is None:
            raise SkipTest("systemd-analyze is not installed")
        version = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=60).stdout
        if int(re.findall("[0-9]+", version)[0]) < FIRST_VERSION:
            raise SkipTest(f"systemd-analyze reads no files before version {FIRST_VERSION}")
        done = subprocess.run([program, *words], capture_output=True, text=True, timeout=60)
        return done.returncode, done.stdout + done.stderr

    def test_verify(self) -> None:
        """It finds nothing wrong with the units, and knows every setting in them."""
        units = sorted(str(unit) for unit in self.directory.iterdir())
        self.assertEqual(self.analyze("verify", "--man=no", *units), (0, ""))

    def test_exposure(self) -> None:
        """It finds the service hardly exposed."""
        unit = str(self.directory / "fileexport.service")
        status, text = self.analyze("security", "--no-pager", "--offline=true", unit)
        self.assertEqual(status, 0, text)
        [level] = re.findall(r"Overall exposure level for \S+: ([0-9.]+)", text)
        self.assertLessEqual(float(level), MAX_EXPOSURE)
