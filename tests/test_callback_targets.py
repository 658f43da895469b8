"""Whom a job may call back: one table of targets that are read or refused, one of addresses."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from fileexport.addresses import Address, read_address
from fileexport.callback_targets import (
    MAX_ADDRESSES,
    MAX_URL,
    NEVER,
    Asker,
    HostPort,
    Target,
    Targets,
    read_host,
)
from fileexport.errors import BadRequestError, CallbackRefusedError

#: The one sentence of every refusal.
SENTENCE = "this callback target is not allowed"
#: Another machine, and a requester who came from there.
THERE = "192.0.2.7"
FROM_THERE = Asker.at(THERE, False)
#: A process of this machine that the uid rule let in.
LOCAL = Asker.at("127.0.0.1", True)
#: Addresses of the machine that the tests imagine.
OURS = frozenset(map(read_address, ("127.0.0.1", "127.0.0.5", "::1", "198.51.100.1", "2001:db8::1")))

#: Hosts that are no name and no address in its one spelling.
ODD_HOSTS = """
    . .. a..b .a a. localhost. 127.0.0.1. -a a- a_b- 127.1 127.0.1 2130706433 0x7f000001 0x7f.0.0.1 0X7F.1
    0177.0.0.1 127.0.0.01 127.0.0.256 1.2.3.4.5 a.1 a.0x a.0x1f 0 00 1e1.1 [::1 ::1] [127.0.0.1] [] [::1%lo]
    [fe80::1%25eth0] [::1]a [:::1] [1:2] [v1.a] a%2eb a%00b b\u00fccher.example \uff11\uff12\uff17.0.0.1
    \u2488.2.3.4 a,b a*b a!b (a) a~b a\\b
""".split()
#: Texts that are no URL of a webhook, whatever their host.
ODD_URLS = (
    "",
    "/ping",
    "//h/ping",
    "h:80/ping",
    "ftp://h/",
    "file:///etc/passwd",
    "gopher://h/",
    "unix:///run/x",
    "http:h",
    "http:/h",
    "http:///h",
    "http://",
    "http://:80/",
    "http://u@h/",
    "http://u:p@h/",
    "http://@h/",
    "http://h:p@ss/",
    "http://h:0/",
    "http://h:65536/",
    "http://h:99999/",
    "http://h:080000/",
    "http://h:/",
    "http://h:-1/",
    "http://h:+1/",
    "http://h:1 /",
    "http://h:1:2/",
    "http://h:\u0661/",
    "http://h/#part",
    "http://h#part",
    "http://h/a b",
    " http://h/",
    "http://h/\n",
    "http://h/\r\nX: y",
    "http://h/\x00",
    "http://h/\t",
    "ht\ttp://h/",
    "http://h/\u00e9",
    "http://h/\ud800",
    "http://h\\@127.0.0.1/",
    "http://h/%",
    "http://h/%0",
    "http://h/%zz",
    'http://h/"',
    "http://h/<a>",
    "http://h//a",
    "http://h/" + "a" * MAX_URL,
)


def addresses(*texts: str) -> list[Address]:
    """Addresses as a resolver gives them."""
    return [IPv6Address(text) if ":" in text else IPv4Address(text) for text in texts]


def targets(*allow: str, own: tuple[tuple[str, int], ...] = ()) -> Targets:
    """The rules of a daemon with these listeners, on a machine with the addresses `OURS`."""
    listeners = [(read_address(address), port) for address, port in own]
    return Targets(lambda: listeners, [HostPort.parse(text) for text in allow], OURS.__contains__)


class TargetTests(SynchronousTestCase):
    """`Target`: what a client names, read."""

    def test_urls(self) -> None:
        """A URL of a webhook is taken apart, and comes out in one spelling."""
        for url, host, port, resource, shown in (
            ("http://h", "h", 80, "/", "http://h/"),
            ("HTTP://Hook.Example:80/A?B=c", "hook.example", 80, "/A?B=c", "http://hook.example/A?B=c"),
            ("https://h:8443?x=1", "h", 8443, "/?x=1", "https://h:8443/?x=1"),
            ("https://h:443/%C3%A9/..;x", "h", 443, "/%C3%A9/..;x", "https://h/%C3%A9/..;x"),
            ("http://10.1.2.3:65535/@", "10.1.2.3", 65535, "/@", "http://10.1.2.3:65535/@"),
            ("http://[2001:DB8:0::1]:9/", "2001:db8::1", 9, "/", "http://[2001:db8::1]:9/"),
            ("http://[::ffff:10.0.0.1]/", "10.0.0.1", 80, "/", "http://10.0.0.1/"),
            ("http://a_b.xn--bcher-kva/?", "a_b.xn--bcher-kva", 80, "/?", "http://a_b.xn--bcher-kva/?"),
        ):
            target = Target.from_url(url)
            self.assertEqual((str(target.host), target.port, target.resource), (host, port, resource), url)
            self.assertEqual(target.url, shown)
            self.assertEqual(Target.from_url(shown), target)

    def test_odd_urls(self) -> None:
        """What is not plainly a URL of http or https is a bad request."""
        for url in ODD_URLS:
            with self.assertRaises((BadRequestError, CallbackRefusedError), msg=repr(url)):
                Target.from_url(url)
        self.assertEqual(len(Target.from_url("http://h/".ljust(MAX_URL, "a")).url), MAX_URL)

    def test_odd_hosts(self) -> None:
        """Other spellings of an address, zones, dots at the end and letters beyond ASCII are refused."""
        for host in ODD_HOSTS:
            self.assertRaises(ValueError, read_host, host)
            with self.assertRaises((BadRequestError, CallbackRefusedError), msg=host):
                Target.from_url(f"http://{host}/")
            if host not in ("::1]", "[1:2]"):
                error = self.assertRaises(CallbackRefusedError, Target.for_get, host, "80", "/")
                self.assertEqual(str(error), SENTENCE)

    def test_places(self) -> None:
        """The place of a target has its port always, its authority only where it is not the scheme's."""
        target = Target.from_url("https://h/x")
        self.assertEqual((target.place, target.authority), ("h:443", "h"))
        self.assertEqual(Target.from_url("http://[::1]:443/").authority, "[::1]:443")

    def test_get(self) -> None:
        """The parameters of `/tar` make the URL that the forerunner would call."""
        target = Target.for_get("localhost", "9010", "/ping?id=A1B2C3")
        self.assertEqual(target.url, "http://localhost:9010/ping?id=A1B2C3")
        for host in ("::1", "[::1]", "0:0:0:0:0:0:0:1"):
            self.assertEqual(Target.for_get(host, "80", "/").url, "http://[::1]/")

    def test_paths(self) -> None:
        """A path is encoded where a request line needs it, and what is encoded already stays."""
        for path, sent in (
            ("/a b?c d", "/a%20b?c%20d"),
            ("/%20%2F%0D%0A", "/%20%2F%0D%0A"),
            ("/100%", "/100%25"),
            ("/%zz", "/%25zz"),
            ("/é", "/%C3%A9"),
            ("/\udcff", "/%FF"),
            ("/#x", "/%23x"),
            ('/"<>\\^`{|}', "/%22%3C%3E%5C%5E%60%7B%7C%7D"),
            ("/?a=1&b=2;c:@!$'()*+,~-._", "/?a=1&b=2;c:@!$'()*+,~-._"),
        ):
            self.assertEqual(Target.for_get("h", "80", path).resource, sent)

    def test_odd_paths(self) -> None:
        """A path that could end the request line, or is none, is a bad request."""
        for path in ("", "x", "http://h/", "?x", "//h/x", "/\r\nX: y", "/\n", "/\x00", "/\x7f", "/\ud800"):
            self.assertRaises(BadRequestError, Target.for_get, "h", "80", path)
        self.assertRaises(BadRequestError, Target.for_get, "h", "80", "/" + " " * (MAX_URL // 2))

    def test_odd_ports(self) -> None:
        """A port is a number from 1 to 65535."""
        for port in ("", "0", "65536", "-1", "+1", " 1", "1 ", "0x50", "1e3", "\u0661", "00080000"):
            self.assertRaises(BadRequestError, Target.for_get, "h", port, "/")


class ReadingTests(SynchronousTestCase):
    """The readers against anything."""

    @settings(max_examples=600, deadline=None)
    @given(
        st.one_of(
            st.text(max_size=60),
            st.text("http://:@[].%?#0x1aff \r\n\\", max_size=40).map("http://".__add__),
            st.from_regex(r"https?://[a-z0-9.\[\]:]{0,20}(:[0-9]{0,6})?(/[!-~]{0,20})?", fullmatch=True),
        )
    )
    @example("http://[::ffff:0:1]:1/")
    def test_urls(self, url: str) -> None:
        """Any text is refused, or is a target whose URL is printable ASCII and reads back the same."""
        try:
            target = Target.from_url(url)
        except (BadRequestError, CallbackRefusedError):
            return
        self.check(target)

    @settings(max_examples=600, deadline=None)
    @given(
        st.one_of(st.text(max_size=30), st.ip_addresses().map(str), st.just("localhost")),
        st.one_of(st.text(max_size=6), st.integers(0, 70_000).map(str)),
        st.one_of(st.text(max_size=40), st.text().map("/".__add__), st.binary().map(bytes.hex)),
    )
    def test_parameters(self, host: str, port: str, path: str) -> None:
        """Any parameters of `/tar` are refused, or are a target that is safe in a request line."""
        try:
            target = Target.for_get(host, port, path)
        except (BadRequestError, CallbackRefusedError):
            return
        self.check(target)

    def check(self, target: Target) -> None:
        """The target is fit to be sent."""
        self.assertRegex(target.url, r"\A[!-~]+\Z")
        self.assertTrue(target.resource.startswith("/"))
        self.assertIn(target.port, range(1, 65536))
        self.assertEqual(Target.from_url(target.url), target)


class RuleTests(SynchronousTestCase):
    """`Targets.choose`: the addresses that a callback may go to."""

    def choose(
        self, rules: Targets, host: str, asker: Asker, *found: str, port: int = 9010
    ) -> tuple[str, ...]:
        """Choose for a host; an address has itself."""
        target = Target.for_get(host, str(port), "/ping")
        chosen = rules.choose(target, addresses(*(found or (str(target.host),))), asker)
        return tuple(map(str, chosen))

    def refuse(self, rules: Targets, host: str, asker: Asker, *found: str, port: int = 9010) -> None:
        """The target is refused with the one sentence."""
        with self.assertRaises(CallbackRefusedError, msg=f"{host} {found}") as caught:
            self.choose(rules, host, asker, *found, port=port)
        self.assertEqual(str(caught.exception), SENTENCE)

    def test_requester(self) -> None:
        """The requester's own address may be called back, no other, not even its neighbour."""
        rules = targets()
        self.assertEqual(self.choose(rules, THERE, FROM_THERE), (THERE,))
        self.assertEqual(self.choose(rules, "pc.example", FROM_THERE, THERE), (THERE,))
        for host in ("192.0.2.8", "8.8.8.8", "10.0.0.1", "127.0.0.1", "2001:db8::7"):
            self.refuse(rules, host, FROM_THERE)
        self.refuse(rules, THERE, Asker())

    def test_this_machine(self) -> None:
        """Every address of this machine is for a process that the uid rule let in, whoever asks from it."""
        for address in ("127.0.0.1", "198.51.100.1", "2001:db8::1"):
            self.assertEqual(self.choose(targets(), address, LOCAL), (address,))
            self.refuse(targets(), address, Asker.at(address, False))
        self.assertEqual(self.choose(targets("198.51.100.1"), "198.51.100.1", FROM_THERE), ("198.51.100.1",))

    def test_mapped(self) -> None:
        """IPv4 written as IPv6 is the same address, on either side."""
        asker = Asker(IPv6Address(f"::ffff:{THERE}"))
        self.assertEqual(self.choose(targets(), THERE, asker), (THERE,))
        self.assertEqual(self.choose(targets(), "h", FROM_THERE, f"::ffff:{THERE}", THERE), (THERE,))
        self.refuse(targets(), "h", FROM_THERE, "::ffff:127.0.0.1")

    def test_loopback(self) -> None:
        """Loopback is for a requester who passed the uid rule: to come from 127.0.0.1 is not enough."""
        for host in ("127.0.0.1", "127.9.9.9", "::1"):
            self.assertEqual(self.choose(targets(), host, LOCAL), (host,))
            self.refuse(targets(), host, Asker.at(host, False))
        self.assertEqual(self.choose(targets(), "localhost", LOCAL, "::1", "127.0.0.1"), ("::1", "127.0.0.1"))
        self.refuse(targets(), "8.8.8.8", LOCAL)

    def test_every_address(self) -> None:
        """One address that is not allowed refuses the name, wherever it stands; no address does too."""
        rules = targets("hook.example")
        self.assertEqual(
            self.choose(rules, "hook.example", FROM_THERE, "10.0.0.1", "10.0.0.2")[0], "10.0.0.1"
        )
        for bad in ("169.254.169.254", "224.0.0.1", "::", "fe80::1"):
            self.refuse(rules, "hook.example", FROM_THERE, "10.0.0.1", bad)
            self.refuse(rules, "hook.example", FROM_THERE, bad, "10.0.0.1")
        self.refuse(targets(), "h", FROM_THERE, THERE, "192.0.2.8")
        target = Target.for_get("hook.example", "1", "/")
        many = [IPv4Address(n) for n in range(0x0A000000, 0x0A000001 + MAX_ADDRESSES)]
        self.assertRaises(CallbackRefusedError, rules.choose, target, [], LOCAL)
        self.assertRaises(CallbackRefusedError, rules.choose, target, many, LOCAL)
        self.assertEqual(len(rules.choose(target, many[1:], LOCAL)), MAX_ADDRESSES)

    def test_never(self) -> None:
        """No address of the table is called, though it be the requester's own and allowed."""
        for network in NEVER:
            for address in (network[0], network[-1]):
                text = f"[{address}]" if address.version == 6 else str(address)
                self.refuse(targets(text), text, Asker(address, True))

    def test_known_bad(self) -> None:
        """Metadata, multicast, broadcast, unspecified, link-local, and IPv4 in other clothes are refused."""
        for text in """
            169.254.169.254 fd00:ec2::254 169.254.0.1 224.0.0.251 239.255.255.255 255.255.255.255 240.0.0.1
            0.0.0.0 0.1.2.3 100.100.100.200 168.63.129.16 :: fe80::1 fec0::1 ff02::1 ff0e::1
            ::ffff:169.254.169.254 ::ffff:0.0.0.0 ::169.254.169.254 ::127.0.0.1 ::8.8.8.8 ::ffff:0:127.0.0.1
            64:ff9b::169.254.169.254 64:ff9b::127.0.0.1 64:ff9b::0.0.0.0 64:ff9b:1::1 64:ff9b:1:7f00:1::
            2002:7f00:1:: 2002:a9fe:a9fe::1 2002:808:808::1 2001:0:7f00:1::1 2001:0:808:808::80ff:fffe
            2001:db8::5efe:169.254.169.254 2001:db8::200:5efe:127.0.0.1
        """.split():
            host = f"[{text}]" if ":" in text else text
            for asker in (LOCAL, Asker.at(text, True)):
                self.refuse(targets(host), host, asker)
                self.refuse(targets("h"), "h", asker, text)

    def test_translated(self) -> None:
        """An allowed name may lie behind NAT64."""
        self.assertEqual(
            self.choose(targets("h"), "h", FROM_THERE, "64:ff9b::808:808"), ("64:ff9b::808:808",)
        )

    def test_allow(self) -> None:
        """What the operator allows is allowed for everyone: a name as this name, an address by every name."""
        rules = targets("Hook.Example", "10.0.0.1:9010", "[2001:db8::5]", "localhost:9011")
        self.choose(rules, "hook.example", FROM_THERE, "10.9.9.9", port=1)
        self.choose(rules, "10.0.0.1", FROM_THERE)
        self.choose(rules, "h", FROM_THERE, "10.0.0.1")
        self.choose(rules, "2001:db8::5", FROM_THERE, port=1)
        self.choose(rules, "localhost", FROM_THERE, "127.0.0.1", port=9011)
        self.refuse(rules, "10.0.0.1", FROM_THERE, port=9011)
        self.refuse(rules, "10.9.9.9", FROM_THERE)
        self.refuse(rules, "localhost", FROM_THERE, "127.0.0.1")
        self.refuse(rules, "a.hook.example", FROM_THERE, "10.9.9.9")

    def test_own(self) -> None:
        """A listener of ours is never called, whoever asks and whatever is allowed; its neighbours are."""
        rules = targets("127.0.0.1", "h", own=(("127.0.0.1", 9006),))
        self.refuse(rules, "127.0.0.1", LOCAL, port=9006)
        self.refuse(rules, "h", LOCAL, "127.0.0.1", port=9006)
        self.refuse(rules, "h", LOCAL, "::ffff:127.0.0.1", port=9006)
        self.choose(rules, "127.0.0.1", LOCAL, port=9007)
        self.choose(rules, "127.0.0.5", LOCAL, port=9006)

    def test_own_wildcard(self) -> None:
        """A listener on every interface is reached by each address of this machine, and is not called."""
        for wildcard in ("0.0.0.0", "::"):
            rules = targets("h", own=((wildcard, 9006),))
            for text in map(str, OURS):
                self.refuse(rules, "h", LOCAL, text, port=9006)
                self.choose(rules, "h", LOCAL, text, port=9007)
            self.refuse(rules, "h", LOCAL, "64:ff9b::198.51.100.1", port=9006)
            self.choose(rules, "h", LOCAL, "198.51.100.2", port=9006)

    def test_own_of_the_moment(self) -> None:
        """The listeners are asked for each time: they may change with a reload."""
        own: list[tuple[Address, int]] = []
        rules = Targets(lambda: own, (), OURS.__contains__)
        self.choose(rules, "127.0.0.1", LOCAL)
        own.append((IPv4Address("127.0.0.1"), 9010))
        self.refuse(rules, "127.0.0.1", LOCAL)


class AllowTests(SynchronousTestCase):
    """`HostPort.parse`, behind `--callback-allow`."""

    def test_read(self) -> None:
        """A host may stand alone or with a port."""
        for text, expected in (
            ("Example.org", HostPort("example.org")),
            ("example.org:80", HostPort("example.org", 80)),
            ("10.0.0.1", HostPort(IPv4Address("10.0.0.1"))),
            ("[::1]:9010", HostPort(IPv6Address("::1"), 9010)),
        ):
            self.assertEqual(HostPort.parse(text), expected)

    def test_refused(self) -> None:
        """What is neither is a mistake of the operator, and is said."""
        for text in (
            "",
            ":80",
            "h:",
            "h:0",
            "h:65536",
            "h:x",
            "::1",
            "[::1",
            "http://h",
            "h/",
            "*.h",
            "10.0.0.0/8",
        ):
            self.assertRaises(ValueError, HostPort.parse, text)
