"""What the access log has of operations of the transfer protocol, and of requests that hold a secret.

`test_assembly` has all other requests.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from fileexport.access_rows import of_operation, of_request
from fileexport.errors import PeerGone
from fileexport.transfer_connection import Finished
from fileexport.transfer_streams import Cancelled
from fileexport.web.request import Request
from fileexport.wire import messages as m
from tests.http_client import HttpCase
from tests.transfer_peer import TransferCase, path


class RowTests(SynchronousTestCase):
    """Finished operations as rows."""

    def test_targets(self) -> None:
        """A row says what was done with what."""
        names = [path("d/a"), path("b")]
        for operation, method, target in (
            (m.Stat(path("a b")), b"stat", b"/a b"),
            (m.Stat(path("\udcff")), b"stat", b"/\xff"),
            (m.ReadFiles(names), b"read_files", b"/d/a?files=2"),
            (m.HashFiles(names, fresh=True), b"hash_files", b"/d/a?files=2"),
            (m.Change([m.MakeStep(one) for one in names]), b"change", b"/d/a?steps=2"),
            (m.Rename(path("a"), path("b")), b"rename", b"/a?target=/b"),
            (m.GetJob("17"), b"job", b"17"),
            (m.ListJobs(), b"jobs", b"-"),
        ):
            row = of_operation(Finished("::1", "alice", operation, None, 5, 0.25))
            self.assertEqual((row.method, row.target), (method, target))
            self.assertEqual((row.peer, row.who, row.length, row.seconds), ("::1", "alice", 5, 0.25))

    def test_statuses(self) -> None:
        """A status is that of the same error over HTTP; who left has one of its own."""
        for error, status in (
            (None, 200),
            (FileNotFoundError(), 404),
            (Cancelled(), 499),
            (PeerGone(), 499),
            (ZeroDivisionError(), 500),
        ):
            row = of_operation(Finished("::1", "alice", m.ListJobs(), error, 0, 0.0))
            self.assertEqual(row.status, status)


class LengthTests(TransferCase):
    """What counts as bytes."""

    def test_both_ways(self) -> None:
        """The bytes of an operation are those of its content on the wire, whichever way they go."""
        content = bytes(100_000)
        (self.root / "a").write_bytes(content)
        (self.root / "b").write_bytes(b"hello")
        plain, packing = self.client(), self.client(features=("zstd",))
        read = packing.ask(m.Read(path("a")))[1]
        assert isinstance(read, bytes)
        stream = packing.begin(m.Write(path("c"), len(content), 0))
        packing.data(stream, read, compressed=True)
        packing.session.reset(stream)
        packing.turn()
        plain.ask(m.Read(path("a")))
        (files, _) = plain.ask(m.ReadFiles([path("b")]))
        lengths = [one.length for one in self.done]
        self.assertEqual(lengths[:3], [len(read), len(read), len(content)])
        self.assertLess(len(read), 1000)
        self.assertTrue(5 < lengths[3] < 200)


class SharesTests(HttpCase):
    """Requests that hold the key of a share."""

    def test_key(self) -> None:
        """Its visitor and its target are known by the share's id; nothing in the row opens it."""
        self.write("d/x.txt", b"x")
        web = self.harness()
        requests: list[Request] = []
        self.patch(web.site, "record", requests.append)
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        url = web.request("POST", "/-/shares", form, b"path=/d").text
        link = url.removeprefix("/-/share/").rstrip("/")
        web.get(f"{url}x.txt", {"Referer": f"http://localhost{url}?page=2"})
        web.get("/d/x.txt", {"Referer": "http://localhost/d/"})
        _, followed, other = (of_request(request, 0.0) for request in requests)
        name = link[:16]
        self.assertEqual((followed.who, followed.status), (f"share:{name}", 200))
        self.assertEqual(followed.target, f"/-/share/{name}.../x.txt".encode())
        self.assertEqual(followed.referrer, f"http://localhost/-/share/{name}.../?page=2".encode())
        self.assertEqual(other.referrer, b"http://localhost/d/")
        self.assertEqual(of_request(requests[0], 0.0).referrer, None)
