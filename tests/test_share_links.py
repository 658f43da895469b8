"""What a log shows of a share's link, and the page that lists them."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from fileexport.web.share_links import SharedLink, shares_page, without_key

ID, MAC = b"ABCDefgh0123-_xy", b"secretsecretsecret-_AB"
KEY = ID + MAC


class MaskTests(SynchronousTestCase):
    """The key never reaches a log, and nothing else is touched."""

    def test_masked(self) -> None:
        """The id stays, in every spelling of the address that reaches the share, or that nearly does."""
        for before, after in (
            (b"/-/share/", b""),
            (b"/-/share/", b"/sub/a%20b?download"),
            (b"/%2D/%73hare/", b"/x"),
            (b"/files/-/share/", b""),
            (b"//-//share//", b"/"),
            (b"/-/SHARE/", b""),
            (b"http://box/-/share/", b"/"),
            (b"/-/sign-in?next=%2F-%2Fshare%2f", b"%2Fx"),
            (b"/-/share/" + KEY + b"/-/share/", b""),
            (b"/-/./share/", b"/"),
            (b"/-/%2e%2E/share/", b"/"),
            (b"/-/sign-in?next=%252F-%252Fshare%252f", b"%252Fx"),
        ):
            masked = without_key(before + KEY + after)
            self.assertNotIn(MAC, masked)
            self.assertIn(ID + b"...", masked)
        self.assertEqual(
            without_key(b"/-/share/" + KEY + b"/a%20b?x=1"), b"/-/share/" + ID + b".../a%20b?x=1"
        )

    def test_strange(self) -> None:
        """What is no link though it looks like one shows nothing of what stands there."""
        for behind in (
            *(b"%2e/" + KEY, b"./" + KEY, b"%2e%2e/" + KEY + b"/x", b"x/" + KEY, b"%25" + KEY),
            *(ID + b"." + MAC, ID + b"%00" + MAC, KEY[:10] + b"/" + KEY[10:], b"?" + KEY, b"\xff" + KEY),
        ):
            masked = without_key(b"/-/share/" + behind)
            self.assertEqual(masked, b"/-/share/...", behind)

    def test_encoded_key(self) -> None:
        """Encoding the key's own characters hides nothing from us."""
        spelled = b"".join(b"%%%02X" % byte for byte in KEY)
        self.assertEqual(without_key(b"/-/share/" + spelled), b"/-/share/" + ID + b"...")

    def test_untouched(self) -> None:
        """Other addresses stay as they came."""
        for address in (
            b"",
            b"/",
            b"/share/" + KEY,
            b"/a/share/" + KEY,
            b"/-/shares/" + ID,
            b"/-/shares/" + ID + b"/revoke",
            b"/-/share/" + ID,
            b"/%61%2fb%",
            b"\xff%ff",
        ):
            self.assertEqual(without_key(address), address)


class PageTests(SynchronousTestCase):
    """The page of links."""

    def page(self, label: str = "/d/", *, owners: bool = False) -> str:
        """The page with one link."""
        link = SharedLink("ID", "/d", "directory", "/files/-/share/KEY/", 1e9, 1.8e9 + 61, "ann<x>@/d")
        return shares_page([(link, label)], prefix="/files", owners=owners).decode()

    def test_link(self) -> None:
        """Each link can be opened and revoked; its owner is named where others' are listed."""
        page = self.page()
        self.assertIn('<a href="/files/-/share/KEY/">', page)
        self.assertIn('<form method="post" action="/files/-/shares/ID/revoke">', page)
        self.assertIn('<time datetime="2027-01-15T08:01:01Z">2027-01-15 08:01</time>', page)
        self.assertNotIn("ann", page)
        self.assertIn("<bdi>ann&lt;x&gt;@/d</bdi>", self.page(owners=True))

    def test_names(self) -> None:
        """A name that is meant to deceive is shown for what it is, and runs nothing."""
        page = self.page("/<script>\u202e\n\udcff\"'/")
        self.assertNotIn("<script>", page)
        self.assertIn("/&lt;script&gt;\ufffd␊\ufffd&#34;&#39;/", page)

    def test_none(self) -> None:
        """Where nothing is shared, the page says so."""
        self.assertIn("Nothing is shared", shares_page([], prefix="", owners=False).decode())
