"""`fileexport.config` and `fileexport.options`: four sources, one value, all mistakes at once."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fileexport.callback_targets import HostPort
from fileexport.config import (
    OPTIONS,
    Anonymous,
    Durability,
    LogFormat,
    Mount,
    NameRule,
    Option,
    PublicUrl,
    Settings,
    checked,
    config_file,
    gather,
)
from fileexport.paths import RelPath

DOCS = Path(__file__).resolve().parent.parent / "docs"
FILE = "/etc/x.toml"
Flags = Mapping[str, Sequence[str] | bool]


def net(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    return ipaddress.ip_network(text)


class Sample(NamedTuple):
    """One option written in the three languages, and what comes out."""

    texts: Sequence[str] | bool
    variable: str
    toml: str
    value: object


def sample(text: str, value: object, toml: str | None = None) -> Sample:
    return Sample([text], text, json.dumps(text) if toml is None else toml, value)


def samples(texts: list[str], value: object) -> Sample:
    return Sample(texts, " , ".join(texts), json.dumps(texts), value)


SAMPLES: dict[str, Sample] = {
    "root": sample("/srv/x", "/srv/x"),
    "http": samples(["tcp:80", "unix:/run/x"], ("tcp:80", "unix:/run/x")),
    "port": sample("0", 0, "0"),
    "transfer": samples(["tcp:81", "unix:/run/y"], ("tcp:81", "unix:/run/y")),
    "transfer-port": sample("7000", 7000, "7000"),
    "file-size-limit": sample("2G", 2 << 30),
    "min-chunk-size": sample("4K", 4096),
    "max-chunk-size": sample("65536", 65536, "65536"),
    "dir": samples(["a/b", "/c/"], (RelPath(["a", "b"]), RelPath(["c"]))),
    "token-file": sample("/t", "/t"),
    "anonymous": sample("Read", Anonymous.READ),
    "address-filter": samples(
        ["10.1.2.3/8", "::1", "::ffff:192.0.2.7"], (net("10.0.0.0/8"), net("::1/128"), net("192.0.2.7/32"))
    ),
    "max-connections": sample("7", 7, "7"),
    "max-concurrent": sample("500", 500, "500"),
    "state": sample("st", "st"),
    "private-key": sample("k.pem", "k.pem"),
    "public-url": sample("https://Example.org/a/", PublicUrl("https", "example.org", 443, "/a")),
    "trusted-proxy": samples(["fd00::/8"], (net("fd00::/8"),)),
    "hidden": Sample(True, "yes", "true", True),
    "insecure-plaintext": Sample(True, "ON", "true", True),
    "allow-host": samples(["Files.LAN.", "[::1]", "192.0.2.7"], ("files.lan", "::1", "192.0.2.7")),
    "callback-allow": samples(
        ["Hook.LAN", "[::1]:9010"], (HostPort("hook.lan"), HostPort(ipaddress.ip_address("::1"), 9010))
    ),
    "names": sample("posix", NameRule.POSIX),
    "durability": sample("fast", Durability.FAST),
    "handler": samples(
        ["/app/=shop.web:App.answer", "/a/v1.0=m:f"],
        (Mount("/app", "shop.web", "App.answer"), Mount("/a/v1.0", "m", "f")),
    ),
    "log-file": sample("/l", "/l"),
    "log-size": sample("64KiB", 65536),
    "log-keep": sample("0", 0, "0"),
    "log-format": sample("json", LogFormat.JSON),
    "config": sample("/c.toml", "/c.toml"),
}


def read(
    flags: Flags | None = None, environ: Mapping[str, str] | None = None, toml: str | None = None
) -> tuple[Settings, list[str]]:
    """`gather` with a root that the case does not have to give."""
    return gather({"root": ["/r"], **(flags or {})}, environ or {}, toml, FILE)


class SourcesTests(SynchronousTestCase):
    """Where a value comes from."""

    def check(self, option: Option, found: tuple[Settings, list[str]], value: object) -> None:
        self.assertEqual(found[1], [])
        self.assertEqual(getattr(found[0], option.field), value, option.name)

    def test_flags(self) -> None:
        """Every option can be given as a flag."""
        for option in OPTIONS:
            case = SAMPLES[option.name]
            self.check(option, read({option.name: case.texts}), case.value)

    def test_environment(self) -> None:
        """Every option can be given as a variable, several values with commas between them."""
        for option in OPTIONS:
            case = SAMPLES[option.name]
            flags: Flags = {} if option.name == "root" else {"root": ["/r"]}
            self.check(option, gather(flags, {option.variable: case.variable}, None, FILE), case.value)

    def test_toml(self) -> None:
        """Every option but --config can be a key of the file, spelled with - or _, with typed values."""
        for option in OPTIONS:
            if option.name == "config":
                continue
            case = SAMPLES[option.name]
            flags: Flags = {} if option.name == "root" else {"root": ["/r"]}
            for key in (option.name, option.name.replace("-", "_")):
                self.check(option, gather(flags, {}, f"{key} = {case.toml}", FILE), case.value)

    def test_defaults(self) -> None:
        """With nothing but a root every option has its default, and no problem is found."""
        self.assertEqual(read(), (Settings(root="/r"), []))

    def test_precedence(self) -> None:
        """A flag is stronger than a variable, which is stronger than the file."""
        environ, toml = {"FILEEXPORT_SERVER_PORT": "2"}, "port = 3"
        self.assertEqual(read({"port": ["1"]}, environ, toml)[0].port, 1)
        self.assertEqual(read({}, environ, toml)[0].port, 2)
        self.assertEqual(read({}, {}, toml)[0].port, 3)

    def test_repeatable_is_replaced(self) -> None:
        """A stronger source replaces all values of a repeatable option, it adds none."""
        found, problems = read(
            {"allow-host": ["a"]}, {"FILEEXPORT_SERVER_ALLOW_HOST": "b,c"}, 'allow-host="d"'
        )
        self.assertEqual((found.allow_host, problems), (("a",), []))

    def test_false_overrides(self) -> None:
        """A variable that says no is stronger than a file that says yes; a flag not typed says nothing."""
        found, problems = read({"hidden": False}, {"FILEEXPORT_SERVER_HIDDEN": "off"}, "hidden = true")
        self.assertEqual((found.hidden, problems), (False, []))

    def test_not_given(self) -> None:
        """No values of a flag, and an empty variable, leave the option to the weaker sources."""
        found, problems = read({"port": [], "dir": []}, {"FILEEXPORT_SERVER_PORT": ""}, "port = 3")
        self.assertEqual((found.port, problems), (3, []))
        self.assertEqual(read({}, {"FILEEXPORT_SERVER_DIR": " ,"}, 'dir = "a"')[0].dirs, (RelPath(["a"]),))

    def test_last_flag_counts(self) -> None:
        """Of an option that is not repeatable the last value on the command line counts."""
        self.assertEqual(read({"port": ["1", "2"]})[0].port, 2)

    def test_underscores_in_flags(self) -> None:
        """A caller may hand over option names with underscores."""
        self.assertEqual(read({"max_concurrent": ["5"]})[0].max_concurrent, 5)

    def test_plain_string(self) -> None:
        """A text in place of a list of texts is one value, not its characters."""
        self.assertEqual(read({"dir": "abc"})[0].dirs, (RelPath(["abc"]),))

    def test_twice_is_once(self) -> None:
        """A value of a repeatable option that is given twice counts once, in its first place."""
        self.assertEqual(read({"dir": ["b", "a", "/b"]})[0].dirs, (RelPath(["b"]), RelPath(["a"])))

    def test_single_value_in_toml(self) -> None:
        """A repeatable option takes one value in the file, commas and all; an empty list is the default."""
        self.assertEqual(read({}, {}, 'http = "unix:/a,b"')[0].http, ("unix:/a,b",))
        self.assertEqual(read({}, {}, "http = []"), (Settings(root="/r"), []))

    def test_other_variables(self) -> None:
        """Variables of the client and of other programs are none of the daemon's business."""
        self.assertEqual(read({}, {"FILEEXPORT_TOKEN": "x", "PATH": "/"})[1], [])

    def test_off(self) -> None:
        """`none`, in any case, leaves one side out."""
        for word in ("none", "None"):
            found, problems = read({"http": [word]})
            self.assertEqual((found.http_off, found.transfer_off, problems), (True, False, []))
            found, problems = read({"transfer": [word]})
            self.assertEqual((found.http_off, found.transfer_off, problems), (False, True, []))
        found = read()[0]
        self.assertEqual((found.http_off, found.transfer_off), (False, False))


class ConfigFileTests(SynchronousTestCase):
    """Which file is read."""

    def test_order(self) -> None:
        """The flag is stronger than the variable; without both there is no file named."""
        environ = {"FILEEXPORT_SERVER_CONFIG": "/e"}
        self.assertEqual(config_file({"config": ["/f"]}, environ), "/f")
        self.assertEqual(config_file({"root": ["/r"]}, environ), "/e")
        self.assertIsNone(config_file({}, {}))

    def test_unusable(self) -> None:
        """A name that no file can have is not handed out; `gather` reports it."""
        self.assertIsNone(config_file({"config": ["a\0b"]}, {}))
        self.assertEqual(read({"config": ["a\0b"]})[1], ["--config: the value holds a control character"])


class MistakesTests(SynchronousTestCase):
    """What is said about mistakes."""

    def test_root_is_required(self) -> None:
        """Without a root there is one line that says so; a bad root is not called missing as well."""
        self.assertEqual(gather({}, {}, None, FILE)[1], ["--root: required; name the directory to export"])
        self.assertEqual(gather({"root": [""]}, {}, None, FILE)[1], ["--root: needs a value"])
        self.assertEqual(gather({"root": True}, {}, None, FILE)[1], ["--root: needs a value"])

    def test_all_at_once(self) -> None:
        """Mistakes of all sources and of each value of a list are named together, in the sources' order."""
        found, problems = gather(
            {"max-concurrent": ["many"], "dir": ["..", "ok", "."]},
            {"FILEEXPORT_SERVER_PORT": "70000"},
            'prot = 1\nlog-size = "big"',
            "/etc/fileexport/config.toml",
        )
        self.assertEqual(found, Settings())
        self.assertEqual(
            problems,
            [
                "--max-concurrent: 'many' is not a whole number",
                "--dir: '..' is not a directory below the root: '..' is not a name",
                "--dir: '.' is the root itself; leave this option out to export all of it",
                "FILEEXPORT_SERVER_PORT: '70000' is not a port (0 to 65535)",
                "/etc/fileexport/config.toml: 'prot' is no option; did you mean 'port'?",
                "/etc/fileexport/config.toml: log-size: 'big' is not a size; write a number of bytes, "
                "or one like 64K, 10M, 2G",
                "--root: required; name the directory to export",
            ],
        )

    def test_overridden_mistake(self) -> None:
        """A mistake is named although a stronger source overrides it, and the stronger value stands."""
        found, problems = read({"port": ["1"]}, {"FILEEXPORT_SERVER_PORT": "x"})
        self.assertEqual((found.port, len(problems)), (1, 1))

    def test_mistake_does_not_fall_through(self) -> None:
        """A mistake in a strong source does not let a weaker source decide."""
        found, problems = read({"max-concurrent": ["x"]}, {}, "max-concurrent = 3")
        self.assertEqual((found.max_concurrent, len(problems)), (10_000, 1))

    def test_unknown_names(self) -> None:
        """An unknown name is a mistake in every source; the nearest option is spelled as that source does."""
        problems = read(
            {"tokn-file": ["x"]}, {"FILEEXPORT_SERVER_LOG_KEP": "1", "FILEEXPORT_SERVER_": ""}, "zz=1"
        )[1]
        self.assertEqual(
            problems,
            [
                "--tokn-file: no such option; did you mean '--token-file'?",
                "FILEEXPORT_SERVER_LOG_KEP: no such option; did you mean 'FILEEXPORT_SERVER_LOG_KEEP'?",
                "FILEEXPORT_SERVER_: no such option",
                f"{FILE}: 'zz' is no option",
            ],
        )

    def test_toml_shapes(self) -> None:
        """A value of a kind that the option does not take is a mistake, never an exception."""
        for text, said in (
            ("port = 1.5", "port: takes text or a number, not a fraction"),
            ("port = true", "port: takes text or a number, not true or false"),
            ("port = [1]", "port: takes one value, not a list"),
            ("port = 1979-05-27", "port: takes text or a number, not a date or time"),
            ("dir = [['a']]", "dir: takes text or a number, not a list"),
            ("[hidden]", "hidden: takes true or false, not a table"),
            (f"port = 0x{'f' * 5000}", "port: the number is too big"),
            ("log-keep = 1\nlog_keep = 2", "'log-keep' is there twice, with - and with _; keep one"),
            ('config = "/c"', "'config' does not belong here; a file names no other"),
            ("log = {size = 1}", "'log' is no option"),
        ):
            self.assertEqual(read({}, {}, text)[1][0].partition(";")[0], f"{FILE}: {said}".partition(";")[0])

    def test_no_toml(self) -> None:
        """A file that is no TOML at all is one mistake."""
        for text in ("port", "a = 1\na = 2", f"port = {'9' * 5000}", f"x = {'[' * 5000}", "\0"):
            found, problems = read({}, {}, text)
            self.assertEqual((found, len(problems)), (Settings(root="/r"), 1))
            self.assertTrue(problems[0].startswith(f"{FILE}: "))

    def test_none_stands_alone(self) -> None:
        """Beside another endpoint or a port, `none` is a contradiction, and all keep their defaults."""
        for side, port in (("http", "port"), ("transfer", "transfer-port")):
            found, problems = read({side: ["none", "tcp:1"]})
            self.assertEqual(
                (found, problems), (Settings(root="/r"), [f"--{side}: 'none' stands alone, or not at all"])
            )
            variable = "FILEEXPORT_SERVER_" + port.replace("-", "_").upper()
            found, problems = read({side: ["none"]}, {variable: "1"})
            self.assertEqual(found, Settings(root="/r"))
            self.assertEqual(problems, [f"--{side}: 'none' and {variable} contradict each other; keep one"])

    def test_shared(self) -> None:
        """`shared`, in any case, may stand beside endpoints and a port, which are further listeners."""
        found, problems = read({"transfer": ["Shared", "tcp:1"], "transfer-port": ["2"]})
        self.assertEqual((found.transfer, problems), (("shared", "tcp:1"), []))
        self.assertEqual((found.transfer_shared, found.transfer_endpoints), (True, ("tcp:1",)))
        self.assertFalse(read({"transfer": ["none"]})[0].transfer_shared)
        self.assertEqual(read({"transfer": ["none"]})[0].transfer_endpoints, ())

    def test_shared_with_nothing(self) -> None:
        """`shared` without an HTTP side, or beside `none`, is a contradiction."""
        found, problems = read({"transfer": ["shared"]}, {"FILEEXPORT_SERVER_HTTP": "none"})
        self.assertEqual(found, Settings(root="/r", http=("none",)))
        leaves = "FILEEXPORT_SERVER_HTTP leaves that out"
        said = f"--transfer: 'shared' needs a listener of the HTTP side, and {leaves}"
        self.assertEqual(problems, [said])
        _, problems = read({"transfer": ["shared", "none"]})
        self.assertEqual(problems, ["--transfer: 'none' stands alone, or not at all"])

    def test_handlers(self) -> None:
        """A path has one handler, however often it is said, and none is reached without an HTTP side."""
        found, problems = read({"handler": ["/a=m:f", "/a/b=m:g", "/a/=m:f"]})
        self.assertEqual((found.handlers, problems), ((Mount("/a", "m", "f"), Mount("/a/b", "m", "g")), []))
        found, problems = read({"handler": ["/b=m:f", "/a=m:f", "/a=m:g", "/b=m:g"]})
        self.assertEqual((found.handlers, problems), ((), ["--handler: more than one handler for /a, /b"]))
        found, problems = read({"handler": ["/a=m:f"]}, {"FILEEXPORT_SERVER_HTTP": "none"})
        self.assertEqual(found.handlers, ())
        said = "--handler: needs the HTTP side, and FILEEXPORT_SERVER_HTTP leaves that out"
        self.assertEqual(problems, [said])

    def test_by_hand(self) -> None:
        """Settings that were made by hand are held to the rules between options, each named by its flag."""
        good = Settings(root="/r", transfer=("shared",), port=0)
        self.assertEqual(checked(good), (good, []))
        for made, said in (
            (Settings(http=("none",), transfer=("shared",)), "--transfer: 'shared' needs a listener"),
            (Settings(http=("none",), port=1), "--http: 'none' and --port contradict each other"),
            (Settings(min_chunk_size=4096, max_chunk_size=1024), "--min-chunk-size: 4096 is more than"),
            (Settings(handlers=(Mount("/a", "m", "f"), Mount("/a", "m", "g"))), "--handler: more than one"),
        ):
            _, [problem] = checked(made)
            self.assertIn(said, problem)

    def test_wrong_types(self) -> None:
        """Values that no option has are named, one line each, and keep their defaults; all others stay."""
        made: dict[str, Any] = {
            "root": Path("/r"),
            "http": "tcp:8080",
            "transfer": ("6768",),
            "transfer_port": 99999,
            "handlers": ("/a=b:c",),
            "dirs": ["a"],
            "anonymous": "read",
            "hidden": 1,
            "max_connections": True,
            "max_concurrent": 0,
            "log_keep": 10.5,
            "state": "",
            "names": NameRule.POSIX,
        }
        settings, problems = checked(Settings(**made))
        self.assertEqual(settings, Settings(names=NameRule.POSIX))
        self.assertEqual(
            sorted(problems),
            [
                "--anonymous: takes Anonymous, not str",
                "--dir: takes tuple[RelPath, ...], not list",
                "--handler: takes tuple[Mount, ...], not tuple[str]",
                "--hidden: takes bool, not int",
                "--http: takes tuple[str, ...], not str",
                "--log-keep: takes int, not float",
                "--max-concurrent: '0' is out of range (1 to 1000000000)",
                "--max-connections: takes int | None, not bool",
                "--root: takes str, not PosixPath",
                "--state: needs a value",
                "--transfer-port: '99999' is not a port (0 to 65535)",
                "--transfer: '6768' is not an endpoint; write 'tcp:6768'",
            ],
        )

    def test_both_none(self) -> None:
        """A daemon without any listener is a mistake, whichever sources say so."""
        found, problems = read({"transfer": ["none"]}, {"FILEEXPORT_SERVER_HTTP": "none"})
        self.assertEqual(found, Settings(root="/r"))
        self.assertEqual(
            problems, ["FILEEXPORT_SERVER_HTTP: 'none', and --transfer as well, leave nothing to listen"]
        )

    def test_chunk_sizes(self) -> None:
        """The smallest chunk is not larger than the largest; they may be the same."""
        found, problems = read({"min-chunk-size": ["64K"]}, {}, "max-chunk-size = 4096")
        self.assertEqual(found, Settings(root="/r"))
        self.assertEqual(problems, [f"--min-chunk-size: 65536 is more than {FILE}: max-chunk-size, 4096"])
        found, problems = read({"min-chunk-size": ["4K"], "max-chunk-size": ["4K"]})
        self.assertEqual((found.min_chunk_size, found.max_chunk_size, problems), (4096, 4096, []))

    def test_secrets_stay_out(self) -> None:
        """What may be a token or a password is not repeated, wherever it was typed by mistake."""
        token = "fex1_" + "A" * 43
        problems = read(
            {"port": [token], "public-url": ["http://me:secret@h/"]},
            {"FILEEXPORT_SERVER_ANONYMOUS": token, "FILEEXPORT_SERVER_TOKEN": token},
            f'token = "{token}"\nmax-concurrent = "{token}"\n{token} = 1',
        )[1]
        self.assertEqual(len(problems), 7)
        for problem in problems:
            self.assertNotIn("AAAA", problem)
            self.assertNotIn("secret", problem)
        self.assertIn("did you mean 'FILEEXPORT_SERVER_TOKEN_FILE'?", "".join(problems))

    def test_printable(self) -> None:
        """A message stays one line and cannot steer a terminal; a long value is cut."""
        problems = read({"po\nrt\x1b": ["1"], "port": ["\u202e" + "x" * 1000]})[1]
        self.assertEqual(len(problems), 2)
        for problem in problems:
            self.assertTrue(problem.isprintable())
            self.assertLess(len(problem), 200)


NAMES = st.sampled_from([option.name for option in OPTIONS]) | st.text(max_size=12)
#: Any text, and texts of the characters that the parsers look at.
TEXTS = st.text(st.characters(), max_size=30) | st.text("019afx.:/[]%-@KMG #?", max_size=30)
SCALARS = TEXTS | st.integers() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False)
KEYS = st.sampled_from([option.name for option in OPTIONS]) | st.from_regex(r"[a-z_-]{1,12}", fullmatch=True)


class HostileTests(SynchronousTestCase):
    """Whatever is typed, there is an answer."""

    def check(self, flags: Flags, environ: Mapping[str, str], toml: str | None) -> None:
        found, problems = gather(flags, environ, toml, FILE)
        self.assertIsInstance(found, Settings)
        self.assertTrue(all(problem.isprintable() for problem in problems))
        config_file(flags, environ)

    @settings(max_examples=200, deadline=None)
    @given(st.dictionaries(NAMES, st.lists(TEXTS, max_size=3) | st.booleans(), max_size=4))
    def test_flags(self, flags: dict[str, list[str] | bool]) -> None:
        """No flags raise an error or make a message of two lines."""
        self.check(flags, {}, None)

    @settings(max_examples=200, deadline=None)
    @given(st.dictionaries(NAMES, TEXTS, max_size=4))
    def test_environment(self, values: dict[str, str]) -> None:
        """No variables raise an error or make a message of two lines."""
        self.check(
            {},
            {"FILEEXPORT_SERVER_" + name.upper().replace("-", "_"): text for name, text in values.items()},
            None,
        )

    @settings(max_examples=200, deadline=None)
    @given(TEXTS | st.text())
    def test_any_file(self, toml: str) -> None:
        """No text of a file raises an error or makes a message of two lines."""
        self.check({}, {}, toml)

    @settings(max_examples=200, deadline=None)
    @given(
        st.dictionaries(
            KEYS, SCALARS | st.lists(SCALARS | st.lists(SCALARS, max_size=2), max_size=3), max_size=4
        )
    )
    def test_toml_values(self, table: dict[str, object]) -> None:
        """No value of the file raises an error or makes a message of two lines."""
        self.check({}, {}, "\n".join(f"{key} = {json.dumps(value)}" for key, value in table.items()))
