"""`fileexport.options`, `option_values`: what each text means, what holds for every row of the table."""

from __future__ import annotations

import dataclasses
import enum
import importlib.util
import ipaddress
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from fileexport.config import OPTIONS, Settings, describe, flag_names, gather

DOCS = Path(__file__).resolve().parent.parent / "docs"
FILE = "/etc/x.toml"
Flags = Mapping[str, Sequence[str] | bool]


def net(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    return ipaddress.ip_network(text)


def read(
    flags: Flags | None = None, environ: Mapping[str, str] | None = None, toml: str | None = None
) -> tuple[Settings, list[str]]:
    """`gather` with a root that the case does not have to give."""
    return gather({"root": ["/r"], **(flags or {})}, environ or {}, toml, FILE)


WHOLE = "is not a whole number"
NETWORK = "is not an address or network; write one like 10.0.0.0/8 or ::1"
ENDPOINT = "is not an endpoint; write one like 'tcp:9006' or 'unix:/run/x.sock'"
HOST = "is not a host name (letters beyond ASCII in their xn-- form)"
ADDRESS = "is not an address; write no port"
SIZE = "is not a size; write a number of bytes, or one like 64K, 10M, 2G"
CHUNK = "is out of range (512 bytes to 1M)"
HANDLER = "is not PREFIX=MODULE:FUNCTION, as in /app=shop.web:answer"
MOUNT = "needs a path like /app or /app/v1, of letters, digits and '-._~'"
URL = "is not a URL like https://example.org/files"

#: Option, bad text, and what is said about it after the text itself.
MISTAKES: tuple[tuple[str, str, str], ...] = (
    ("max-concurrent", "many", WHOLE),
    ("max-concurrent", "٣", WHOLE),
    ("max-concurrent", "1_000", WHOLE),
    ("max-concurrent", "9" * 40, WHOLE),
    ("max-concurrent", "0", "is out of range (1 to 1000000000)"),
    ("max-connections", "-1", "is out of range (1 to 1000000000)"),
    ("log-keep", "1000", "is out of range (0 to 999)"),
    ("port", "70000", "is not a port (0 to 65535)"),
    ("port", "-1", "is not a port (0 to 65535)"),
    ("port", " 1", "is not a port (0 to 65535)"),
    ("http", "9006", "is not an endpoint; write 'tcp:9006'"),
    ("http", "/run/x", ENDPOINT),
    ("http", "shared", ENDPOINT),
    ("transfer", "6768", "is not an endpoint; write 'tcp:6768'"),
    ("transfer", "/run/x", ENDPOINT),
    ("transfer-port", "65536", "is not a port (0 to 65535)"),
    ("file-size-limit", "0", "is out of range (1 byte to 8388607T)"),
    ("min-chunk-size", "511", CHUNK),
    ("min-chunk-size", "many", SIZE),
    ("max-chunk-size", "1025K", CHUNK),
    ("max-chunk-size", "1", CHUNK),
    ("http", "tcp:", ENDPOINT),
    ("http", "127.0.0.1:80", ENDPOINT),
    ("dir", "..", "is not a directory below the root: '..' is not a name"),
    ("dir", "a/../b", "is not a directory below the root: '..' is not a name"),
    ("dir", "/", "is the root itself; leave this option out to export all of it"),
    ("dir", "a/.fileexport", "is reserved for the daemon itself"),
    ("anonymous", "some", "is not one of auto, none, read, all"),
    ("names", "", "needs a value"),
    ("durability", "slow", "is not one of safe, fast"),
    ("log-format", "xml", "is not one of text, json"),
    ("log-size", "10X", SIZE),
    ("log-size", "1.5G", SIZE),
    ("log-size", "K", SIZE),
    ("log-size", "0", "is out of range (1 byte to 8388607T)"),
    ("log-size", "8388608T", "is out of range (1 byte to 8388607T)"),
    ("address-filter", "10.0.0.0/33", NETWORK),
    ("address-filter", "10.0.0.0/255.0.0.0", NETWORK),
    ("address-filter", "010.0.0.1", NETWORK),
    ("address-filter", "localhost", NETWORK),
    ("trusted-proxy", "fe80::1%eth0", NETWORK),
    ("allow-host", "example.org:80", ADDRESS),
    ("allow-host", "1.2.3", ADDRESS),
    ("allow-host", "fe80::1%eth0", ADDRESS),
    ("allow-host", "[a]", HOST),
    ("allow-host", "größe.example", HOST),
    ("allow-host", "-a.example", HOST),
    ("allow-host", "a..b", HOST),
    ("allow-host", "a" * 64, HOST),
    ("callback-allow", "example.org:x", "is not HOST or HOST:PORT (an IPv6 address stands in brackets)"),
    ("callback-allow", "example.org:0", "names a port that is none (1 to 65535)"),
    ("handler", "app", HANDLER),
    ("handler", "/app=module", HANDLER),
    ("handler", "/app=module:", HANDLER),
    ("handler", "/app=:function", HANDLER),
    ("handler", "/app=a:b:c", HANDLER),
    ("handler", "/a=b=c:d", HANDLER),
    ("handler", "=a:b", HANDLER),
    ("handler", "/=a:b", MOUNT),
    ("handler", "//=a:b", MOUNT),
    ("handler", "/a//=a:b", MOUNT),
    ("handler", "app=a:b", MOUNT),
    ("handler", "/a//b=a:b", MOUNT),
    ("handler", "/a/../b=a:b", MOUNT),
    ("handler", "/a b=a:b", MOUNT),
    ("handler", "/%61=a:b", MOUNT),
    ("handler", "/{id}=a:b", MOUNT),
    ("handler", "/a/*=a:b", MOUNT),
    ("handler", "/a=..b:c", ": '..b' is not a name of Python's"),
    ("handler", "/a=b-c:d", ": 'b-c' is not a name of Python's"),
    ("handler", "/a=b:c()", ": 'c()' is not a name of Python's"),
    ("public-url", "example.org", URL),
    ("public-url", "ftp://example.org", URL),
    ("public-url", "https://example.org/?a", URL),
    ("public-url", "https://example.org#a", URL),
    ("public-url", "https://example.org:0/", "names a port that is none (1 to 65535)"),
    ("public-url", "https://example.org:65536", "names a port that is none (1 to 65535)"),
    ("public-url", "https:///a", HOST),
    ("state", "a" * 4097, "the value is longer than 4096 characters"),
    ("root", "a\nb", "the value holds a control character"),
    ("root", "a\x9bb", "the value holds a control character"),
    ("root", "\ud800", "the value is not text"),
)
BAD_PATHS = ("/a/../b", "/./a", "//a", "/a b", "/%zz", "/<", "/\\")


class MistakesTests(SynchronousTestCase):
    """What is said about bad values."""

    def test_values(self) -> None:
        """Each bad value gets one line that begins with its source, and the option keeps its default."""
        for name, text, said in MISTAKES:
            found, problems = read({name: [text]})
            field = next(option.field for option in OPTIONS if option.name == name)
            self.assertEqual(len(problems), 1, problems)
            self.assertTrue(problems[0].startswith(f"--{name}: "), problems)
            self.assertTrue(problems[0].endswith(said), (problems, said))
            self.assertEqual(getattr(found, field), getattr(Settings(), field))

    def test_paths_of_urls(self) -> None:
        """The path of the public URL is taken only as it stands in a link."""
        for path in BAD_PATHS:
            [problem] = read({"public-url": [f"https://example.org{path}"]})[1]
            self.assertIn("has a path that is not plain", problem)

    def test_flag_values(self) -> None:
        """A flag in the environment is yes or no, in a few usual words."""
        for text in ("maybe", "2", "truee"):
            found, problems = read({}, {"FILEEXPORT_SERVER_HIDDEN": text})
            self.assertFalse(found.hidden)
            self.assertEqual(len(problems), 1)
            self.assertIn("FILEEXPORT_SERVER_HIDDEN: ", problems[0])


class ValuesTests(SynchronousTestCase):
    """What the texts mean."""

    def test_sizes(self) -> None:
        """K, M, G and T are powers of 1024, in either case, with or without iB."""
        for text, size in (("7", 7), ("64K", 1 << 16), ("10m", 10 << 20), ("2GiB", 2 << 30), ("1t", 1 << 40)):
            self.assertEqual(read({"log-size": [text]})[0].log_size, size)

    def test_networks(self) -> None:
        """Host bits are dropped, and IPv4 inside IPv6 becomes IPv4 only where all of it is."""
        for text, network in (
            ("::ffff:10.1.2.3/104", "10.0.0.0/8"),
            ("::ffff:0:0/96", "0.0.0.0/0"),
            ("::/0", "::/0"),
            ("2001:DB8::1/32", "2001:db8::/32"),
        ):
            self.assertEqual(read({"trusted-proxy": [text]})[0].trusted_proxy, (net(network),))

    def test_public_url(self) -> None:
        """Host, origin and prefix come out as a browser and a link spell them."""
        for text, origin, prefix in (
            ("http://Example.org", "http://example.org", ""),
            ("https://example.org:443/", "https://example.org", ""),
            ("HTTPS://example.org:80/a/b%20c/", "https://example.org:80", "/a/b%20c"),
            ("http://[2001:DB8::1]:8080/x", "http://[2001:db8::1]:8080", "/x"),
        ):
            url = read({"public-url": [text]})[0].public_url
            assert url is not None
            self.assertEqual((url.origin, url.prefix, str(url)), (origin, prefix, origin + prefix))
            self.assertEqual(url.authority, origin.partition("://")[2])

    def test_bytes_in_paths(self) -> None:
        """A path that is not UTF-8 is kept, as surrogate escapes."""
        self.assertEqual(read({"state": ["a\udcff"]}), (Settings(root="/r", state="a\udcff"), []))


class TableTests(SynchronousTestCase):
    """What holds for every row of `OPTIONS`."""

    def test_fields(self) -> None:
        """Every field of `Settings` has exactly one option, and every option a field."""
        fields = [field.name for field in dataclasses.fields(Settings)]
        self.assertEqual(sorted(option.field for option in OPTIONS), sorted(fields))

    def test_spellings(self) -> None:
        """No two options share a spelling, and an alias is the name in another spelling."""
        spellings = [spelling for option in OPTIONS for spelling in flag_names(option)]
        self.assertEqual(len(spellings), len(set(spellings)))
        for option in OPTIONS:
            self.assertTrue(re.fullmatch(r"[a-z]+(-[a-z]+)*", option.name))
            self.assertEqual({alias.replace("_", "-") for alias in option.aliases} - {option.name}, set())

    def test_flag_names(self) -> None:
        """The spellings carry their dashes, the short one first."""
        by_name = {option.name: flag_names(option) for option in OPTIONS}
        self.assertEqual(by_name["port"], ("-p", "--port"))
        self.assertEqual(by_name["max-connections"], ("--max-connections", "--max_connections"))
        self.assertEqual(by_name["address-filter"], ("--address-filter", "--address_filter"))

    def test_meanings(self) -> None:
        """Every meaning is one to three sentences, and its help text has no Markdown in it."""
        for option in OPTIONS:
            self.assertTrue(option.meaning.endswith("."), option.name)
            self.assertLess(len(option.meaning), 250, option.name)
            self.assertNotIn("`", describe(option))
            self.assertEqual(option.flag, not option.metavar)
            self.assertEqual(option.repeatable, "repeatable" in describe(option))
        self.assertTrue(describe(OPTIONS[0]).endswith("(required)"))

    def test_defaults(self) -> None:
        """The default that people read is the default that holds, wherever it can be written as a value."""
        for name in (
            "file-size-limit",
            "min-chunk-size",
            "max-chunk-size",
            "max-concurrent",
            "anonymous",
            "names",
            "durability",
            "log-size",
            "log-keep",
            "log-format",
        ):
            option = next(option for option in OPTIONS if option.name == name)
            self.assertEqual(option.parse(option.default), getattr(Settings(), option.field))
            self.assertIn(f"default: {option.default}", describe(option))

    def test_choices(self) -> None:
        """The words that the help text offers are the words that are taken."""
        for option in OPTIONS:
            default = getattr(Settings(), option.field)
            if isinstance(default, enum.Enum):
                words = [member.value for member in type(default)]
                self.assertEqual(option.metavar, "|".join(words))
                for word in words:
                    self.assertEqual(read({option.name: [word]})[1], [])


class ManualTests(SynchronousTestCase):
    """The page docs/configuration.md."""

    def test_table(self) -> None:
        """The manual's table has one row of three cells for each option."""
        spec = importlib.util.spec_from_file_location("option_table", DOCS / "_ext" / "option_table.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        rows = module.option_table().splitlines()[2:]
        self.assertEqual(len(rows), len(OPTIONS))
        for row, option in zip(rows, OPTIONS, strict=True):
            self.assertEqual(len(re.findall(r"(?<!\\)\|", row)), 4, row)
            self.assertIn(f"--{option.name}", row)

    def test_example(self) -> None:
        """The manual's example file has no mistakes, and the manual's mistakes are those that are made."""
        page = (DOCS / "configuration.md").read_text(encoding="utf-8")
        [example] = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
        self.assertEqual(gather({}, {}, example, FILE)[1], [])
        [mistakes] = re.findall(r"```text\n(.*?)```", page, re.DOTALL)
        problems = read(
            {"max-concurrent": ["many"]},
            {"FILEEXPORT_SERVER_PORT": "70000"},
            "prot = 1",
        )[1]
        self.assertEqual(
            [line.replace("/etc/fileexport/config.toml", FILE) for line in mistakes.split("\n")[:-1]],
            problems,
        )
