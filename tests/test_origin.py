"""Host, Origin and Sec-Fetch-Site: what a web page sends behind its reader's back changes nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product

from twisted.trial.unittest import SynchronousTestCase

from fileexport.web.origin import Names, allowed_names, cross_site, host_is_allowed, host_name
from tests.http_client import HttpCase

NAMES = Names(
    allowed_names("Box.example", ["Files.lan", ""], "pub.example.org"),
    public_origin="https://pub.example.org",
)

OUR_HOSTS = b"""
    localhost LOCALHOST LocalHost localhost. localhost:9006 localhost:80 localhost: localhost:0 localhost.:80
    localhost:00080 localhost:65535 127.0.0.1 127.0.0.1:9006 127.0.0.1. 127.8.9.1 0.0.0.0 10.0.0.5
    192.168.1.7:65535 255.255.255.255 [::1] [::1]:9006 [::] [0:0:0:0:0:0:0:1] [::ffff:127.0.0.1] [FE80::1]
    box.example BOX.EXAMPLE:9006 box box. box:1 files.lan FILES.lan:80 pub.example.org pub.example.org:443
""".split()
FOREIGN_HOSTS = (
    b"",
    b" ",
    b"localhost evil.example",
    b"localhost, evil.example",
    b"localhost\t",
    b"localhost\x00",
    b"localhost\x00.evil.example",
    b"l\xd0\xbecalhost",
    *b"""
        evil.example localhost.evil.example evil.example.localhost a.localhost evillocalhost localhostx local
        localhost.. .localhost . .. - _ : * *.localhost localhost%00 localhost%2eevil.example local%68ost
        127.0.0.1.evil.example 127.0.0.1.nip.io 127.0.0.1.. 127.1 127.0.1 2130706433 0x7f000001 0x7f.0.0.1
        0177.0.0.1 127.0.0.01 256.0.0.1 1.2.3.4.5 1.2.3 localhost:65536 localhost:99999 localhost:000080
        localhost:-1 localhost:+1 localhost:abc localhost:80:80 localhost:80/ user@localhost localhost@evil
        localhost/path localhost/ localhost?x localhost#x localhost\\ http://localhost //localhost
        ::1 ::1:9006 [::1 ::1] [] [:] [localhost] [127.0.0.1] [::1]evil [::1].evil.example [::1%25eth0]
        [::1%eth0] [v1.x] [::1]] [[::1] [::ffff:127.0.0.256] 127.0.0.1,127.0.0.2 box.example.com boxx
        example pub.example.org.evil.example files.lan.evil.example
    """.split(),
)

#: Header profiles of whoever changes something; the function is given method, and whether the browser takes
#: our origin for trustworthy (localhost): only then it sends Sec-Fetch fields.
EVIL = "http://evil.example"
MOZILLA = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
CHANGES = (
    ("GET", "/delete?dir=/&name=victim"),
    ("POST", "/delete?dir=/&name=victim"),
    ("DELETE", "/delete?dir=/&name=victim"),
    ("GET", "/stop"),
    ("POST", "/stop"),
    ("GET", "/tar?dir=/&name=victim"),
)
PROGRAMS = {"wget": "Wget/1.24.5", "curl": "curl/8.16.0"}
BROWSERS = ("image", "form", "fetch", "frame", "mail link", "null origin", "old browser")


def browser(profile: str, method: str, *, trustworthy: bool) -> Mapping[str, str]:
    """What a browser sends for a page of another site, as the Fetch standard says."""
    if profile == "old browser":
        return {"User-Agent": "Mozilla/4.0 (compatible; MSIE 6.0; Windows NT 5.1)", "Referer": EVIL + "/"}
    headers = {"User-Agent": MOZILLA}
    if profile != "mail link":
        headers["Referer"] = EVIL + "/"
    # An Origin goes with every request by fetch(), and with every method but GET and HEAD.
    if profile == "null origin":
        headers["Origin"] = "null"
    elif profile == "fetch" or method != "GET":
        headers["Origin"] = "null" if profile == "mail link" else EVIL
    if trustworthy:
        headers["Sec-Fetch-Site"] = "none" if profile == "mail link" else "cross-site"
        headers["Sec-Fetch-Mode"] = {"image": "no-cors", "fetch": "cors"}.get(profile, "navigate")
    return headers


class HostTests(SynchronousTestCase):
    """Which Host names reach us."""

    def test_ours(self) -> None:
        """Address literals and our names are allowed in every spelling that RFC 3986 has for them."""
        self.assertEqual([host for host in OUR_HOSTS if not host_is_allowed(host, NAMES)], [])

    def test_foreign(self) -> None:
        """Other names are not, whatever they begin or end with; nor is anything malformed."""
        self.assertGreaterEqual(len(OUR_HOSTS) + len(FOREIGN_HOSTS), 40)
        self.assertEqual([host for host in FOREIGN_HOSTS if host_is_allowed(host, NAMES)], [])

    def test_name_without_port(self) -> None:
        """The name is lower case, without port and closing dot; an address has its shortest spelling."""
        table = {
            b"LocalHost.:80": "localhost",
            b"[0:0:0:0:0:0:0:1]:9006": "::1",
            b"[::FFFF:1.2.3.4]": "::ffff:102:304",
            b"a_b.c-d": "a_b.c-d",
            b"evil.example": "evil.example",
            b"localhost:65536": None,
            b"": None,
        }
        self.assertEqual({host: host_name(host) for host in table}, table)

    def test_names_of_the_machine(self) -> None:
        """The machine is known by its whole name and by the first part of it, and never by nothing."""
        expected = {"localhost", "box.example", "box", "files.lan", "pub.example.org"}
        self.assertEqual(NAMES.hosts, expected)
        self.assertEqual(allowed_names("", [], None), {"localhost"})


class CrossSiteTests(SynchronousTestCase):
    """The rule by itself."""

    def refused(
        self, method: bytes = b"POST", *, secure: bool = False, names: Names = NAMES, **fields: bytes
    ) -> bool:
        """Whether a request with these fields is refused; a value with `|` stands for two field lines."""
        found = {name.replace("_", "-").encode(): value.split(b"|") for name, value in fields.items()}
        found.setdefault(b"host", [b"localhost:9006"])
        return cross_site(method, lambda name: found.get(name, ()), secure=secure, names=names) is not None

    def test_own_origin(self) -> None:
        """A page of this very origin may change things, however its port is spelled."""
        for host, origin in (
            (b"localhost:9006", b"http://localhost:9006"),
            (b"LOCALHOST:9006", b"http://localhost:9006"),
            (b"localhost:9006", b"HTTP://LocalHost:9006"),
            (b"localhost", b"http://localhost"),
            (b"localhost:80", b"http://localhost"),
            (b"localhost", b"http://localhost:80"),
            (b"[::1]:9006", b"http://[::1]:9006"),
            (b"localhost:9006", b"https://pub.example.org"),
        ):
            self.assertFalse(self.refused(host=host, origin=origin), (host, origin))
        self.assertFalse(self.refused(host=b"box:443", origin=b"https://box", secure=True))

    def test_foreign_origin(self) -> None:
        """Another scheme, name or port is another origin; so is none, an opaque one, and more than one."""
        for origin in b"""
            http://evil.example null https://localhost:9006 http://localhost http://localhost:9007
            http://localhost:90060 http://127.0.0.1:9006 http://localhost:9006/ http://localhost:9006.evil
            http://localhost:9006@evil http://evil#http://localhost:9006 file:// http://pub.example.org
            https://pub.example.org:8443 http://localhost:9006|http://localhost:9006 | localhost:9006
        """.split():
            self.assertTrue(self.refused(origin=origin), origin)
        self.assertTrue(self.refused(host=b"box:80", origin=b"https://box", secure=True))
        self.assertTrue(self.refused(host=b"box|evil.example", origin=b"http://box"))

    def test_public_origin_is_only_what_was_configured(self) -> None:
        """Without a public URL no name of another server is an origin of ours."""
        alone = Names(NAMES.hosts)
        self.assertTrue(self.refused(origin=b"https://pub.example.org", names=alone))
        self.assertFalse(self.refused(host=b"box", origin=b"http://box", names=alone))

    def test_under_the_public_name_only_the_public_origin_counts(self) -> None:
        """A page that came in clear from the host that the world reaches by TLS changes nothing."""
        for host in (b"pub.example.org", b"PUB.example.org", b"pub.example.org:443"):
            for origin in (
                b"http://pub.example.org",
                b"http://pub.example.org:80",
                b"https://pub.example.org:8443",
            ):
                self.assertTrue(self.refused(host=host, origin=origin), (host, origin))
            self.assertFalse(self.refused(host=host, origin=b"https://pub.example.org"), host)
        self.assertFalse(self.refused(host=b"pub.example.org:9006", origin=b"http://pub.example.org:9006"))

    def test_sec_fetch_site(self) -> None:
        """Only `same-origin` passes; a link typed or opened from elsewhere does not, nor a second value."""
        for value in b"""
            none cross-site same-site same-origin|cross-site cross-site|same-origin same-origin,none |
        """.split():
            self.assertTrue(self.refused(sec_fetch_site=value), value)
        self.assertFalse(self.refused(sec_fetch_site=b"same-origin"))
        self.assertFalse(self.refused(sec_fetch_site=b" Same-Origin "))

    def test_browser_by_get(self) -> None:
        """A browser changes nothing by GET, not even for a page of this origin."""
        self.assertTrue(self.refused(b"GET", user_agent=b"Mozilla/5.0"))
        self.assertTrue(self.refused(b"GET", user_agent=b"curl|x mozilla/4.0"))
        self.assertTrue(self.refused(b"GET", user_agent=b"Mozilla/5.0", sec_fetch_site=b"same-origin"))
        self.assertFalse(self.refused(b"POST", user_agent=b"Mozilla/5.0", sec_fetch_site=b"same-origin"))
        self.assertFalse(self.refused(b"GET", user_agent=b"Wget/1.24.5"))
        self.assertFalse(self.refused(b"GET"))


class ProfileTests(HttpCase):
    """Every changing endpoint with every header profile, through the whole door."""

    def test_programs_just_work(self) -> None:
        """wget and curl reach every changing endpoint, under the name of this machine or its address."""
        harness = self.harness()
        for agent, host, (method, target) in product(PROGRAMS.values(), ("localhost", "10.0.0.5"), CHANGES):
            self.write("victim")
            answer = harness.request(method, target, {"User-Agent": agent, "Host": host})
            self.assertEqual(
                answer.status, 400 if target.startswith("/tar") else 200, (agent, method, target)
            )
        self.assertEqual(harness.stops, 8)

    def test_browsers_change_nothing_for_another_site(self) -> None:
        """No page of another site, and no link in a mail, makes a browser change anything here."""
        harness = self.harness()
        victim = self.write("victim")
        profiles = [profile for profile in BROWSERS if profile != "old browser"]
        for case in self._cases(profiles):
            (method, target), profile, trustworthy = case
            headers = browser(profile, method, trustworthy=trustworthy)
            host = "localhost" if trustworthy else "10.0.0.5"
            answer = harness.request(method, target, {"Host": host, **headers})
            self.assertEqual((answer.status, harness.stops, victim.exists()), (403, 0, True), case)

    def test_old_browser_changes_nothing(self) -> None:
        """A browser that sends neither Origin nor Sec-Fetch is known by its name, and refused."""
        harness = self.harness()
        victim = self.write("victim")
        for case in self._cases(["old browser"]):
            (method, target), profile, trustworthy = case
            answer = harness.request(method, target, browser(profile, method, trustworthy=trustworthy))
            self.assertEqual((answer.status, harness.stops, victim.exists()), (403, 0, True), case)

    def test_number_of_combinations(self) -> None:
        """The two tables above are 108 combinations of endpoint and profile."""
        self.assertEqual(len(list(self._cases([*PROGRAMS, *BROWSERS]))), 108)

    def _cases(self, profiles: list[str]) -> Iterator[tuple[tuple[str, str], str, bool]]:
        yield from product(CHANGES, profiles, (True, False))

    def test_our_own_page(self) -> None:
        """A form of our own page changes something by POST; its link by GET does not."""
        harness = self.harness()
        victim = self.write("victim")
        headers = {"User-Agent": MOZILLA, "Sec-Fetch-Site": "same-origin", "Origin": "http://localhost"}
        self.assertEqual(harness.get("/delete?dir=/&name=victim", headers).status, 403)
        self.assertTrue(victim.exists())
        self.assertEqual(harness.request("POST", "/delete?dir=/&name=victim", headers).status, 200)
        self.assertFalse(victim.exists())

    def test_reading_is_a_browsers_right(self) -> None:
        """A browser reads, also where a link of another site led it here."""
        harness = self.harness()
        self.write("victim", b"text")
        headers = browser("mail link", "GET", trustworthy=True)
        self.assertEqual(harness.get("/victim", headers).status, 200)
        self.assertEqual(harness.get("/list?dir=/", headers).status, 200)

    def test_rebinding(self) -> None:
        """A name that is not ours gets nothing at all, not even a page or the health."""
        harness = self.harness()
        self.write("victim", b"text")
        for target in ("/", "/victim", "/list?dir=/", "/-/health", "/favicon.ico", "/nope"):
            answer = harness.get(target, {"Host": "evil.example"})
            self.assertEqual(answer.status, 403, target)
            self.assertNotIn("victim", answer.text)
        for _, target in CHANGES:
            self.assertEqual(harness.get(target, {"Host": "evil.example:9006"}).status, 403, target)
        self.assertTrue((self.root / "victim").exists())

    def test_host_that_is_none(self) -> None:
        """A malformed Host, two of them, or none is a bad request; only HTTP/1.0 may leave it out."""
        harness = self.harness()
        for host in ("a b", "localhost:99999", "[::1", ""):
            self.assertEqual(harness.get("/", {"Host": host}).status, 400, host)
        for fields in (b"", b"Host: localhost\r\nHost: localhost\r\n", b"Host: localhost\r\nhost: evil\r\n"):
            answer = harness.raw(b"GET / HTTP/1.1\r\n%s\r\n" % fields)
            self.assertEqual(answer[:12], b"HTTP/1.1 400", fields)
            self.assertIn(b"\r\nConnection: close\r\n", answer)
        self.assertEqual(harness.raw(b"GET / HTTP/1.0\r\n\r\n")[:12], b"HTTP/1.1 200")

    def test_allowed_names(self) -> None:
        """The names of --allow-host and this machine's own are hosts of ours."""
        harness = self.harness(hosts=["files.lan"])
        for host in ("files.lan:9006", "BOX", "127.0.0.1", "[::1]:9006"):
            self.assertEqual(harness.get("/", {"Host": host}).status, 200, host)
