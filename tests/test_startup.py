"""What a start reads of the machine, and every mistake that it names."""

from __future__ import annotations

import importlib
import os
import stat
import sys
import tempfile
import threading
import types
from collections.abc import Sequence
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from fileexport.config import Durability, LogFormat, Mount, Settings
from fileexport.errors import ConfigurationError
from fileexport.keys import generate_keys
from fileexport.startup import (
    MAX_FILE,
    Prepared,
    is_inside,
    is_public,
    prepare,
    prepare_settings,
    read_settings,
    read_tokens,
    reload_key,
)
from fileexport.tokens import Right, generate_token

TOKEN = generate_token()
NOW = 1_800_000_000.0


class Case(SynchronousTestCase):
    """Has an empty root, and an environment with nothing but a home; the umask is 022."""

    def setUp(self) -> None:
        self.base = Path(self.mktemp()).absolute()
        self.root = self.directory("root")
        self.environ = {"HOME": str(self.directory("home"))}
        self.addCleanup(os.umask, os.umask(0o022))

    def directory(self, name: str, mode: int = 0o755) -> Path:
        """A new directory beside the root."""
        made = self.base / name
        made.mkdir(parents=True)
        made.chmod(mode)
        return made

    def file(self, name: str, content: str | bytes, mode: int = 0o600) -> str:
        """A file beside the root; its path."""
        path = self.base / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
        path.chmod(mode)
        return str(path)

    def prepare(self, **given: Sequence[str] | bool) -> Prepared:
        """Prepare the root's start, with these options."""
        flags = {name.replace("_", "-"): value for name, value in given.items()}
        return prepare({"root": [str(self.root)], **flags}, self.environ)

    def mistakes(self, **given: Sequence[str] | bool) -> tuple[str, ...]:
        """Why it cannot start: one line for each mistake, none of which shows a token."""
        problems: tuple[str, ...] = self.assertRaises(ConfigurationError, self.prepare, **given).problems
        for problem in problems:
            self.assertEqual(len(problem.splitlines()), 1)
            self.assertNotIn(TOKEN, problem)
            self.assertNotIn("PRIVATE", problem)
        return problems

    def mistake(self, **given: Sequence[str] | bool) -> str:
        """The only mistake."""
        (problem,) = self.mistakes(**given)
        return problem


class HandlerTests(Case):
    """The functions of `--handler`, imported."""

    def setUp(self) -> None:
        super().setUp()
        self.here = self.directory("here")
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(self.here)
        self.patch(sys, "path", list(sys.path))
        self.patch(sys, "dont_write_bytecode", True)
        modules = set(sys.modules)
        self.addCleanup(lambda: [sys.modules.pop(name) for name in set(sys.modules) - modules])

    def module(self, name: str, code: str) -> None:
        """A module in the current directory."""
        self.file(f"here/{name}.py", code)
        importlib.invalidate_caches()

    def test_imported(self) -> None:
        """The functions are found by their paths, also those of packages and in classes."""
        self.module("own_shop", "def answer(*_): return 'shop'\n")
        self.directory("here/own_pages")
        self.module("own_pages/one", "class App:\n    @staticmethod\n    def answer(*_): return 'one'\n")
        found = self.prepare(handler=["/shop=own_shop:answer", "/a/b=own_pages.one:App.answer"]).handlers
        self.assertEqual({path: call() for path, call in found.items()}, {"/shop": "shop", "/a/b": "one"})

    def test_none(self) -> None:
        """Without handlers nothing is imported, and nowhere else is looked for modules."""
        before = list(sys.path)
        self.assertEqual(self.prepare().handlers, {})
        self.assertEqual(sys.path, before)

    def test_current_directory(self) -> None:
        """It is searched first for handlers; afterwards it hides nothing, but has what nobody else has."""
        self.module("own_first", "import own_second, timeit\nanswer = timeit.answer\n")
        self.module("own_second", "")
        self.module("timeit", "def answer(*_): return 'ours'\n")
        kept = sys.modules.pop("timeit", None)
        found = self.prepare(handler=["/a=own_first:answer"]).handlers
        self.assertEqual(found["/a"](), "ours")
        self.assertEqual(sys.path[-1], str(self.here))
        self.assertEqual(sys.path.count(str(self.here)), 1)
        del sys.modules["timeit"]
        self.assertTrue(hasattr(importlib.import_module("timeit"), "Timer"))
        if kept is not None:
            sys.modules["timeit"] = kept

    def test_exported_directory(self) -> None:
        """Nothing is imported from a current directory that is exported: others may write there."""
        (self.root / "own_evil.py").write_text("raise SystemExit('run')\n", encoding="ascii")
        os.chdir(self.root)
        mistake = self.mistake(handler=["/a=own_evil:answer"])
        self.assertEqual(
            mistake,
            "--handler /a=own_evil:answer: ModuleNotFoundError: No module named 'own_evil'; "
            "nothing is imported from the current directory, which is exported",
        )

    def test_exported_module(self) -> None:
        """Nor from there where Python looks by itself, in whatever way, and its code does not run."""
        code = "raise SystemExit('run')\n"
        (self.root / "own_evil.py").write_text(code, encoding="ascii")
        (self.root / "own_package").mkdir()
        (self.root / "own_package" / "__init__.py").write_text(code, encoding="ascii")
        (self.root / "own_space").mkdir()
        (self.root / "own_space" / "evil.py").write_text(code, encoding="ascii")
        os.chdir(self.root)
        for entry in (str(self.root), "", "."):
            with self.subTest(entry=entry):
                sys.path.insert(0, entry)
                importlib.invalidate_caches()
                for module in ("own_evil", "own_package", "own_package.deep", "own_space.evil"):
                    line = self.mistake(handler=[f"/a={module}:answer"])
                    self.assertIn("lies in what is exported, where others may write", line)
                sys.path.remove(entry)
        loaded = types.ModuleType("own_loaded")
        loaded.__file__ = str(self.root / "own_loaded.py")
        sys.modules["own_loaded"] = loaded  # goes with the test
        self.assertIn("lies in what is exported", self.mistake(handler=["/a=own_loaded:answer"]))

    def test_application(self) -> None:
        """An application's own search path stays what it is."""
        self.module("own_here", "def answer(*_): pass\n")
        before = list(sys.path)
        settings = Settings(root=str(self.root), handlers=(Mount("/a", "own_here", "answer"),))
        error = self.assertRaises(ConfigurationError, prepare_settings, settings, self.environ)
        self.assertEqual(
            error.problems, ("--handler /a=own_here:answer: ModuleNotFoundError: No module named 'own_here'",)
        )
        sys.path.append(str(self.here))
        self.assertEqual(set(prepare_settings(settings, self.environ).handlers), {"/a"})
        self.assertEqual(sys.path, [*before, str(self.here)])

    def test_mistakes(self) -> None:
        """What cannot be imported, is not there or cannot be called is named, in one line each."""
        self.module("own_bad", "this is no Python\n")
        self.module("own_ends", "raise SystemExit('go\\naway')\n")
        self.module("own_values", "number = 1\nclass Empty: pass\nasync def late(*_): pass\n")
        wanted = {
            "own_none:f": "ModuleNotFoundError: No module named 'own_none'",
            "own_bad:f": "SyntaxError: invalid syntax",
            "own_ends:f": "SystemExit: go away",
            "own_values:f": "AttributeError: module 'own_values' has no attribute 'f'",
            "own_values:Empty.f": "AttributeError: type object 'Empty' has no attribute 'f'",
            "own_values:number": "ValueError: a handler is a function, and int cannot be called",
            "own_values:late": "ValueError: a handler is a plain function",
        }
        lines = self.mistakes(handler=[f"/{n}={name}" for n, name in enumerate(wanted)])
        for n, (line, (name, said)) in enumerate(zip(lines, wanted.items(), strict=True)):
            self.assertTrue(line.startswith(f"--handler /{n}={name}: {said}"), line)

    def test_own_paths(self) -> None:
        """The daemon's own paths, and what lies below them, are not given away."""
        self.module("own_app", "def f(*_): pass\n")
        for path in ("/list", "/-", "/-/app", "/-/files", "/stop/it", "/favicon.ico"):
            self.assertEqual(
                self.mistake(handler=[f"{path}=own_app:f"]),
                f"--handler {path}=own_app:f: the daemon has that path itself; choose another",
            )
        self.assertEqual(set(self.prepare(handler=["/lists=own_app:f"]).handlers), {"/lists"})


class MistakeTests(Case):
    """What stops a start."""

    def test_root(self) -> None:
        """The root must be there, and be a directory."""
        none, file = str(self.base / "none"), self.file("f", "")
        self.assertEqual(self.mistake(root=[none]), f"--root: {none}: No such file or directory")
        self.assertEqual(self.mistake(root=[file]), f"--root: {file}: Not a directory")

    def test_no_root(self) -> None:
        """Without a root nothing starts."""
        error = self.assertRaises(ConfigurationError, prepare, {}, self.environ)
        self.assertEqual(error.problems, ("--root: required; name the directory to export",))

    def test_dirs(self) -> None:
        """Every exported directory must be there, be a directory, and lie in the root."""
        (self.root / "a" / "b").mkdir(parents=True)
        (self.root / "file").touch()
        (self.root / "out").symlink_to(self.base)
        lines = self.mistakes(dir=["a/b", "c", "file", "a/none", "out"])
        self.assertEqual(
            [line.partition(" (")[0] for line in lines[:3]],
            [
                "--dir: c: No such file or directory",
                "--dir: file: Not a directory",
                "--dir: a/none: No such file or directory",
            ],
        )
        self.assertTrue(lines[3].startswith("--dir: out: "), lines[3])
        self.assertIn(str(self.root), lines[0])
        self.assertEqual(len(lines), 4)

    def test_token_file(self) -> None:
        """A token file must be a regular file of UTF-8, not too large, and nobody else's to read."""
        none = str(self.base / "none")
        for path, reason in (
            (none, "No such file or directory"),
            (str(self.root), "Is a directory"),
            (self.file("group", TOKEN, 0o640), "others can read it; run: chmod 600"),
            (self.file("all", TOKEN, 0o604), "others can read it; run: chmod 600"),
            (self.file("latin", b"na\xefve-token"), "not UTF-8"),
            (self.file("large", "#" * (MAX_FILE + 1)), f"larger than {MAX_FILE} bytes"),
        ):
            line = self.mistake(token_file=[path])
            self.assertTrue(line.startswith(f"--token-file: {path}: {reason}"), line)

    def test_token_lines(self) -> None:
        """Every line of a token file that cannot be read is named by its number."""
        lines = f"{TOKEN} may=fly\n# fine\n{TOKEN}x under=here {TOKEN}\nshort\n"
        path = self.file("tokens", lines)
        numbers = [
            line.removeprefix(f"{path}:").partition(":")[0] for line in self.mistakes(token_file=[path])
        ]
        self.assertEqual(set(numbers), {"1", "3", "4"})

    def test_token_for_its_file(self) -> None:
        """Who gives the token in the place of its file does not see it again."""
        self.assertEqual(
            self.mistake(token_file=[TOKEN]), "--token-file: this value: No such file or directory"
        )
        self.mistake(token_file=[self.file(TOKEN, "x" * 300)])

    def test_private_key(self) -> None:
        """A private key must be there, and be PEM of a key and the certificate that belongs to it."""
        good, other = generate_keys()[1], generate_keys()[1]
        key, begin, certificate = good.partition("-----BEGIN CERTIFICATE")
        stranger = begin + other.partition(begin)[2]
        none = str(self.base / "none")
        for path, reason in (
            (none, "No such file or directory"),
            (str(self.root), "Is a directory"),
            (self.file("text", "not PEM"), "private key: wanted is PEM text"),
            (self.file("binary", b"\xff\xfe"), "not UTF-8"),
            (self.file("key", key), "private key: "),
            (self.file("certificate", begin + certificate), "private key: "),
            (self.file("mixed", key + stranger), "private key: none of the certificates belongs to it"),
            (self.file("large", good + "\n" * MAX_FILE), f"larger than {MAX_FILE} bytes"),
        ):
            line = self.mistake(private_key=[path])
            self.assertTrue(line.startswith(f"--private-key: {path}: {reason}"), line)

    def test_config(self) -> None:
        """A configuration file that was named must be there, and be TOML in UTF-8, not too large."""
        none = str(self.base / "none")
        for path, reason in (
            (none, "No such file or directory"),
            (str(self.root), "Is a directory"),
            (self.file("latin", b'log-format = "\xe9"'), "not UTF-8"),
            (self.file("large", "#" * (MAX_FILE + 1)), f"larger than {MAX_FILE} bytes"),
        ):
            self.assertEqual(self.mistake(config=[path]), f"--config: {path}: {reason}")
        broken = self.file("broken", "= 1")
        self.assertTrue(self.mistake(config=[broken]).startswith(f"{broken}: this is not TOML"))

    def test_nothing_to_listen(self) -> None:
        """A daemon that would not listen does not start; one side is enough."""
        self.assertIn("nothing to listen", self.mistake(http=["none"], transfer=["none"]))
        self.assertTrue(self.prepare(http=["none"]).settings.http_off)
        self.assertTrue(self.prepare(transfer=["none"]).settings.transfer_off)

    def test_all_at_once(self) -> None:
        """All mistakes of all kinds are named at once, and nothing is made."""
        none = str(self.base / "none")
        lines = self.mistakes(
            root=[none],
            port=["http"],
            token_file=[self.file("tokens", f"{TOKEN} may=fly\nx\n")],
            private_key=[none],
            config=[self.file("toml", 'colour = "blue"')],
            anonymous=["some"],
        )
        self.assertEqual(len(lines), 7, lines)
        for beginning in ("--root", "--port", "--private-key", "--anonymous", str(self.base / "tokens:2")):
            self.assertTrue(any(line.startswith(beginning) for line in lines), beginning)
        self.assertEqual(os.listdir(self.environ["HOME"]), [])


class SourceTests(Case):
    """Flags, environment and TOML file."""

    def test_precedence(self) -> None:
        """A flag beats a variable, a variable the file, the file the default."""
        toml = self.file("toml", 'port = 1\nmax-concurrent = 2\nlog-format = "json"\n')
        self.environ.update(FILEEXPORT_SERVER_PORT="3", FILEEXPORT_SERVER_MAX_CONCURRENT="4")
        settings, problems = read_settings({"port": ["5"], "root": ["/r"], "config": [toml]}, self.environ)
        self.assertEqual(problems, [])
        self.assertEqual((settings.port, settings.max_concurrent), (5, 4))
        self.assertEqual((settings.log_format, settings.durability), (LogFormat.JSON, Durability.SAFE))

    def test_file_from_the_environment(self) -> None:
        """A variable may name the configuration file, a flag another one."""
        first, second = self.file("first", "port = 1"), self.file("second", "port = 2")
        self.environ["FILEEXPORT_SERVER_CONFIG"] = first
        root = {"root": ["/r"]}
        self.assertEqual(read_settings(root, self.environ)[0].port, 1)
        self.assertEqual(read_settings({**root, "config": [second]}, self.environ)[0].port, 2)

    def test_relative_paths(self) -> None:
        """Paths stay what they were when the daemon changes its directory, also through a link and `..`."""
        elsewhere = self.directory("elsewhere/inner")
        (self.base / "link").symlink_to(elsewhere)
        tokens = self.file("elsewhere/tokens", TOKEN)
        for name in ("tokens", "key"):
            self.file(name, "a wrong one")
        key = self.file("elsewhere/key", generate_keys()[1])
        here = os.path.relpath(self.base)
        exported = self.directory("elsewhere/exported")
        found = self.prepare(
            root=[f"{here}/link/../exported"],
            token_file=[f"{here}/link/../tokens"],
            private_key=[f"{here}/link/../key"],
            log_file=["log"],
        ).settings
        self.assertEqual(found.root, str(exported))
        for path, wanted in ((found.token_file, tokens), (found.private_key, key)):
            assert path is not None
            self.assertTrue(os.path.isabs(path))
            self.assertTrue(os.path.samefile(path, wanted))
        self.assertEqual(found.log_file, str(Path("log").absolute()))


class StateTests(Case):
    """The state directory."""

    def state(self, **given: Sequence[str]) -> Path:
        """Where the state goes."""
        return self.prepare(**given).state

    def test_given(self) -> None:
        """The option is obeyed."""
        self.environ["STATE_DIRECTORY"] = str(self.base / "systemd")
        wanted = self.base / "state"
        self.assertEqual(self.state(state=[str(wanted)]), wanted)
        self.assertEqual(stat.S_IMODE(wanted.stat().st_mode), 0o700)

    def test_secrets_that_would_be_exported(self) -> None:
        """State, tokens and key may not lie in what is exported; beside the exported directories they may."""
        inside = {
            "state": [str(self.root / "state")],
            "token_file": [self.file("root/tokens", TOKEN)],
            "private_key": [self.file("root/key", generate_keys()[1])],
        }
        with self.assertRaises(ConfigurationError) as caught:
            self.prepare(**inside)
        self.assertEqual(
            [line.partition(":")[0] for line in caught.exception.problems],
            [
                "--state",
                "--token-file",
                "--private-key",
            ],
        )
        self.directory("root/d")
        self.assertEqual(self.prepare(dir=["d"], **inside).state, self.root / "state")

    def test_systemd(self) -> None:
        """systemd's directory is taken as it is, the first where there are several."""
        self.environ |= {"STATE_DIRECTORY": f"{self.base}/one:{self.base}/two", "XDG_STATE_HOME": "/nowhere"}
        self.assertEqual(self.state(), self.base / "one")

    def test_homes(self) -> None:
        """Else it lies below the state home, else below the home, with a name of the root's own."""
        below = self.state()
        self.assertEqual(below.parent, Path(self.environ["HOME"], ".local/state/fileexport"))
        self.assertTrue(below.name.startswith("root-"))
        self.environ["XDG_STATE_HOME"] = str(self.base / "xdg")
        self.assertEqual(self.state().parent, self.base / "xdg" / "fileexport")
        for directory in (below, self.state()):
            self.assertEqual(stat.S_IMODE(directory.stat().st_mode), 0o700)

    def test_relative_home(self) -> None:
        """A relative XDG_STATE_HOME is ignored, as its specification wants it."""
        self.environ["XDG_STATE_HOME"] = "state"
        self.assertTrue(is_inside(self.state(), self.environ["HOME"]))

    def test_one_for_each_root(self) -> None:
        """Two roots of one name have two state directories; one root by two paths has one."""
        other = self.directory("other/root")
        (self.base / "link").symlink_to(self.root)
        self.assertNotEqual(self.state(), self.state(root=[str(other)]))
        self.assertEqual(self.state(), self.state(root=[str(self.base / "link")]))

    def test_long_name(self) -> None:
        """A root whose name is as long as names can be has a state directory."""
        self.state(root=[str(self.directory("ä" * 127))])

    def test_never_inside_the_root(self) -> None:
        """What lies inside the root, also through a link, is passed over for the next."""
        inner = self.directory("root/inner")
        (self.base / "link").symlink_to(inner)
        for name in ("STATE_DIRECTORY", "XDG_STATE_HOME"):
            for path in (inner, self.base / "link"):
                self.environ[name] = str(path)
                self.assertTrue(is_inside(self.state(), self.environ["HOME"]), name)
        self.assertEqual(os.listdir(inner), [])

    def test_all_inside_the_root(self) -> None:
        """Where every place lies inside the root, one line asks for another, and nothing is made."""
        self.environ = {"STATE_DIRECTORY": f"{self.base}/one", "XDG_STATE_HOME": f"{self.base}/two"}
        line = self.mistake(root=["/"])
        self.assertTrue(
            line.startswith("--state: name a directory; all usual ones lie inside the root"), line
        )
        self.assertEqual(sorted(os.listdir(self.base)), ["home", "root"])

    def test_cannot_be_made(self) -> None:
        """A state directory that cannot be made is one line."""
        file = self.file("file", "")
        self.assertEqual(self.mistake(state=[file]), f"--state: {file}: File exists; give --state DIR")
        mistake = f"--state: {file}/x: Not a directory; give --state DIR"
        self.assertEqual(self.mistake(state=[f"{file}/x"]), mistake)

    def test_of_another_user(self) -> None:
        """A state directory of another user is refused: they could replace what is in it."""
        place = "/"
        if os.geteuid() == 0:
            place = str(self.directory("state"))
            os.chown(place, 12345, -1)
        self.assertEqual(
            self.mistake(state=[place]), f"--state: {place}: belongs to another user; give --state DIR"
        )


class GeneratedTokenTests(Case):
    """The token that is made where none is given."""

    def path(self, prepared: Prepared) -> Path:
        """Its file."""
        assert prepared.token_path is not None
        return prepared.token_path

    def test_made_once(self) -> None:
        """It is written with mode 0600 whatever the umask, may do everything, and is kept across starts."""
        os.umask(0)
        first = self.prepare()
        self.assertTrue(first.generated)
        path = self.path(first)
        self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o600)
        self.assertEqual(path.parent, first.state)
        text = path.read_text()
        principal = self.prepare().tokens.find(text.split()[0], NOW)
        assert principal is not None
        self.assertEqual(principal.name, "generated")
        self.assertEqual(self.path(self.prepare()).read_text(), text)
        self.assertEqual(os.listdir(first.state), ["token"])

    def test_not_made(self) -> None:
        """Where a token file is given, none is made."""
        path = self.file("tokens", f"{TOKEN} name=me\n")
        prepared = self.prepare(token_file=[path])
        self.assertFalse(prepared.generated)
        self.assertEqual((str(prepared.token_path), os.listdir(prepared.state)), (path, []))
        principal = prepared.tokens.find(TOKEN, NOW)
        assert principal is not None
        self.assertEqual(principal.name, "me")

    def test_damaged(self) -> None:
        """One that others can read, or that is no token, is not replaced behind the user's back."""
        path = self.path(self.prepare())
        path.chmod(0o644)
        self.assertIn("others can read it", self.mistake())
        path.chmod(0o600)
        path.write_text("broken")
        self.assertIn(f"{path}:1: ", self.mistake())

    def test_cannot_be_written(self) -> None:
        """A token that cannot be written is one line, and leaves nothing."""
        state = self.directory("state")
        (state / "token").symlink_to(state / "none")
        self.assertIn("the generated token", self.mistake(state=[str(state)]))
        self.assertEqual(os.listdir(state), ["token"])

    def test_two_starts_at_once(self) -> None:
        """Of daemons that start at once all use the one token that stays."""
        for number in range(20):
            state = str(self.base / f"state-{number}")
            ready = threading.Barrier(4)
            found: list[Prepared] = []

            def start(
                state: str = state, ready: threading.Barrier = ready, found: list[Prepared] = found
            ) -> None:
                ready.wait(20)
                found.append(self.prepare(state=[state]))

            threads = [threading.Thread(target=start) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(20)
            token = Path(state, "token").read_text().split()[0]
            self.assertEqual([bool(each.tokens.find(token, NOW)) for each in found], [True] * 4)
            self.assertEqual(os.listdir(state), ["token"])


class GivenTokenTests(Case):
    """A token that was typed behind the directory."""

    def given(self, token: str, **options: Sequence[str] | bool) -> Prepared:
        """Prepare the root's start, with that token."""
        flags = {name.replace("_", "-"): value for name, value in options.items()}
        return prepare({"root": [str(self.root)], **flags}, self.environ, token)

    def test_alone(self) -> None:
        """Without a file the token stands alone, may do everything, and no other is generated."""
        prepared = self.given(TOKEN)
        found = prepared.tokens.find(TOKEN, NOW)
        self.assertEqual((found and found.rights, len(prepared.tokens)), (Right.ALL, 1))
        self.assertEqual((prepared.generated, prepared.token_path), (False, None))
        self.assertEqual(os.listdir(prepared.state), [])
        self.assertEqual(prepared.where_tokens_are, "the one that was given")
        self.assertEqual(prepared.read_tokens().find(TOKEN, NOW), found)

    def test_beside_a_file(self) -> None:
        """Beside a token file both count, also when that is read again."""
        other = generate_token()
        path = self.file("tokens", other)
        prepared = self.given(TOKEN, token_file=[path])
        self.assertEqual(len(prepared.tokens), 2)
        self.assertEqual(prepared.where_tokens_are, f"the one that was given, or see {path}")
        Path(path).write_text("")
        again = prepared.read_tokens()
        self.assertIsNotNone(again.find(TOKEN, NOW))
        self.assertIsNone(again.find(other, NOW))

    def test_in_the_file_too(self) -> None:
        """What the file says of the same token counts."""
        prepared = self.given(TOKEN, token_file=[self.file("tokens", f"{TOKEN} may=read")])
        found = prepared.tokens.find(TOKEN, NOW)
        self.assertEqual((found and found.rights, len(prepared.tokens)), (Right.READ, 1))

    def test_beside_a_credential(self) -> None:
        """It stands beside systemd's credential too."""
        credentials = self.directory("credentials")
        self.file("credentials/token", generate_token())
        self.environ["CREDENTIALS_DIRECTORY"] = str(credentials)
        self.assertEqual(len(self.given(TOKEN).tokens), 2)

    def test_weak(self) -> None:
        """A weak one is taken with a warning that does not show it."""
        (warning,) = self.given("hunter2hunter").tokens.warnings
        self.assertTrue(warning.startswith("TOKEN: "), warning)
        self.assertNotIn("hunter", warning)

    def test_none(self) -> None:
        """What cannot be a token is a mistake among the others, and is not shown."""
        error = self.assertRaises(ConfigurationError, self.given, "hunter2 x", port=["http"])
        self.assertEqual([line.partition(":")[0] for line in error.problems], ["--port", "TOKEN"])
        self.assertNotIn("hunter2", str(error))

    def test_not_shown(self) -> None:
        """What is handed on to the daemon holds the stored form, not the token."""
        self.assertNotIn(TOKEN, repr(self.given(TOKEN)))


class ReadAgainTests(Case):
    """What SIGHUP reads."""

    def test_tokens(self) -> None:
        """The tokens are those that the file holds now; a mistake in it is told without its contents."""
        path = Path(self.file("tokens", ""))
        self.assertEqual(len(read_tokens(path)), 0)
        path.write_text(TOKEN)
        self.assertEqual(len(read_tokens(path)), 1)
        path.write_text(f"{TOKEN} may=fly")
        error = self.assertRaises(ConfigurationError, read_tokens, path)
        self.assertNotIn(TOKEN, str(error))
        prepared = self.prepare(token_file=[self.file("tokens", TOKEN)])
        self.assertEqual(len(prepared.read_tokens()), 1)
        self.assertEqual(prepared.where_tokens_are, f"see {path}")
        path.unlink()
        self.assertRaises(ConfigurationError, prepared.read_tokens)
        error = self.assertRaises(ConfigurationError, read_tokens, path)
        self.assertEqual(str(error), f"the token file: {path}: No such file or directory")

    def test_key(self) -> None:
        """A key that cannot be read again is told, and so is one that is none."""
        path = self.file("key", generate_keys()[1])
        tls = self.prepare(private_key=[path]).tls
        assert tls is not None
        reload_key(tls, path)
        for content in (b"nothing", b"\xff"):
            Path(path).write_bytes(content)
            self.assertRaises(ConfigurationError, reload_key, tls, path)
        os.unlink(path)
        error = self.assertRaises(ConfigurationError, reload_key, tls, path)
        self.assertEqual(str(error), f"--private-key: {path}: No such file or directory")


class PublicTests(Case):
    """Whether every user of the machine can read a root."""

    def test_ancestors(self) -> None:
        """A root is public when it lets others in and list, and all above it let them in."""
        with tempfile.TemporaryDirectory() as name:
            top = Path(name)
            root = top / "a" / "b"
            root.mkdir(parents=True)
            top.chmod(0o711)
            if not is_public(str(root)):
                raise SkipTest("the directory for temporary files is private")
            (top / "link").symlink_to(root)
            for private, mode in ((root, 0o754), (root, 0o751), (root.parent, 0o754), (top, 0o700)):
                before = stat.S_IMODE(private.stat().st_mode)
                private.chmod(mode)
                for path in (root, top / "link"):
                    self.assertFalse(is_public(str(path)), (private, mode))
                private.chmod(before)
            self.assertTrue(is_public(str(root)))

    def test_inside(self) -> None:
        """Inside is the root itself and all beneath it, links resolved; a longer name is another one."""
        (self.base / "link").symlink_to(self.root)
        for path, wanted in (
            (self.root, True),
            (self.root / "not" / "there", True),
            (self.base / "link" / "x", True),
            (self.root / "..", False),
            (self.base / "root2", False),
        ):
            self.assertIs(is_inside(path, str(self.root)), wanted, path)
