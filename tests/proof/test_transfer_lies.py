"""A server that lies: the client writes nothing outside, hangs nowhere, believes nothing wrong, works on."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Thread

from blake3 import blake3

from fileexport import Client
from fileexport.client import listings
from fileexport.client.names import LocalFile
from fileexport.errors import AuthenticationError, CorruptedResponse, FileExportError, row_for
from fileexport.paths import RelPath
from fileexport.wire import messages as m
from tests.proof import lies
from tests.proof.counts import SOAK, Tally
from tests.proof.lying_server import Answer, Liar, LyingServer, Script, answering, honest
from tests.proof.transfer_case import TransferCase, whole_tree

#: Milliseconds for an answer, and seconds after which a call hangs: a cut download is tried again some times.
TIMEOUT = 300
LIMIT = 20.0
_told = Tally("lies told to the client")

#: What a call does with a client.
Act = Callable[[Client], object]


class LiesCase(TransferCase):
    """Has a destination beside which nothing may change."""

    def setUp(self) -> None:
        super().setUp()
        self.here = self.base / "here"
        self.destination = self.here / "destination"
        self.destination.mkdir(parents=True)
        (self.here / "outside").mkdir()
        (self.here / "outside" / "precious").write_bytes(b"precious")
        self.outside = self.beside()

    def beside(self) -> dict[str, bytes | None]:
        """All that is there but the destination."""
        return {
            name: what for name, what in whole_tree(self.here).items() if not name.startswith("destination")
        }

    def lie(self, what: str, script: Script, act: Act) -> Exception | None:
        """Let the client meet a script; what the call raised. Afterwards it works with an honest server."""
        with LyingServer(self.token, script) as server:
            client = Client("127.0.0.1", server.port, self.token, timeout=TIMEOUT)
            try:
                raised = self.act(what, act, client)
                self.assertEqual(self.beside(), self.outside, what)
                server.become(answering(honest))
                self.assertEqual(list(client.list_files("/")), ["honest"], what)
            finally:
                client.close()
            self.assertEqual(server.failed, [], what)
        _told.add(1)
        return raised

    def act(self, what: str, act: Act, client: Client) -> Exception | None:
        """Do it in a thread, because it might hang; what it raised, which must be a typed error."""
        raised: list[BaseException] = []

        def run() -> None:
            try:
                act(client)
            except BaseException as error:
                raised.append(error)

        thread = Thread(target=run, daemon=True)
        thread.start()
        thread.join(LIMIT)
        self.assertFalse(thread.is_alive(), f"the client hangs: {what}")
        if not raised:
            return None
        self.assertIsInstance(raised[0], FileExportError | OSError | ValueError, what)
        self.assertTrue(str(raised[0]).isprintable(), f"{what}: {raised[0]!r}")
        assert isinstance(raised[0], Exception)
        return raised[0]

    def nothing_arrived(self, what: str) -> None:
        """No file stands in the destination; a partial one may wait in staging."""
        found = [name for name in whole_tree(self.destination) if not name.startswith(".fileexport")]
        self.assertEqual(found, [], what)


class AnswerTests(LiesCase):
    """Answers to one operation."""

    def every(self, table: dict[str, Answer], act: Act, *, corrupt: bool = False) -> None:
        """Each lie of a table leads to an error, and nothing arrives; `corrupt`: to the error for lies."""
        for what, answer in table.items():
            raised = self.lie(what, answering(answer), act)
            self.assertIsNotNone(raised, f"believed: {what}")
            if corrupt and not isinstance(raised, TimeoutError):
                self.assertIsInstance(raised, CorruptedResponse, what)
            self.nothing_arrived(what)

    def test_any(self) -> None:
        """What is an answer to nothing: for a listing, a download, an upload, and in a soak for the rest."""
        source = self.source("source", 100_000)
        acts: list[Act] = [
            lambda client: client.list_files("/"),
            lambda client: client.download_file("/file", str(self.destination)),
            lambda client: client.upload_file(str(source), "/"),
        ]
        if SOAK:
            acts += [
                lambda client: client.stat("/file"),
                lambda client: list(client.hashes("/")),
                lambda client: list(client.read("/file")),
                lambda client: client.remove("/file", recursive=True),
                lambda client: client.move("/file", "/other"),
                lambda client: client.make_directory("d", "/"),
                lambda client: _raise(client.make_directories(["/d", "/d/e"])),
                lambda client: client.compress("/file"),
                lambda client: client.jobs(),
                lambda client: client.upload_directory(str(source.parent), "/"),
                lambda client: client.download_directory("/tree", str(self.destination)),
            ]
        for act in acts:
            self.every(lies.ANY, act)

    def test_lists(self) -> None:
        """Listings with names that are none, of wrong types, and without an end."""
        # As many as no directory has; with its own number the proof would take minutes.
        self.patch(listings, "MAX_ENTRIES", 20_000)
        self.every(lies.LISTS, lambda client: client.list_files("/"), corrupt=True)

    def test_downloads(self) -> None:
        """Content that is not what was announced, or not what its hash says."""
        self.every(lies.DOWNLOADS, lambda client: client.download_file("/file", str(self.destination)))

    def test_small_downloads(self) -> None:
        """Small files under names that nobody asked for, or with content that is not theirs."""
        wanted = [LocalFile(name, str(self.destination / name), 4, 0) for name in ("a", "b")]

        def act(client: Client) -> None:
            for outcome in client.download_small(wanted, "/"):
                if outcome.error is not None:
                    raise outcome.error

        good = [[b"a", 0, blake3(b"true").digest(), b"true"], [b"b", 0, blake3(b"true").digest(), b"true"]]
        for name in (b"..", b"../x", b"/x", b"a/b", b"c", b"", b"precious"):
            self.small(f"the name {name!r}", act, [[name, *good[0][1:]], good[1]])
        self.small("one twice", act, [good[0], good[0]])
        self.small("another hash", act, [[*good[0][:2], bytes(32), b"true"], good[1]])
        self.small("another content", act, [[*good[0][:3], b"wrong"], good[1]])
        self.small("more than 64 KiB", act, [[*good[0][:3], bytes(1 << 17)], good[1]])
        self.small("one too few", act, good[:1])
        self.small("one too many", act, [*good, good[0]])

    def small(self, what: str, act: Act, files: list[list[object]]) -> None:
        """Answer `read_files` with these; what arrives under a name must be what was asked for under it."""
        raised = self.lie(what, answering(_files(files)), act)
        self.assertIsNotNone(raised, f"believed: {what}")
        for name in ("a", "b"):
            found = self.destination / name
            if found.exists():
                self.assertEqual(found.read_bytes(), b"true", what)
                found.unlink()
        self.nothing_arrived(what)

    def test_uploads(self) -> None:
        """Acknowledgements of what was not sent, or of something else."""
        source = self.write("source", lies.CONTENT)
        self.every(lies.UPLOADS, lambda client: client.upload_file(str(source), "/"))

    def test_small_uploads(self) -> None:
        """Small files that are acknowledged wrongly: none of those that were not done counts as done."""
        files = [self.source(f"small-{number}", 100) for number in range(3)]
        sent = [LocalFile(path.name, str(path), 100, 0) for path in files]

        def act(client: Client) -> None:
            for outcome in client.upload_small(sent, "/"):
                if outcome.error is not None:
                    raise outcome.error

        self.every(lies.SMALL_UPLOADS, act)


def _raise(errors: Sequence[Exception | None]) -> None:
    for error in errors:
        if error is not None:
            raise error


def _files(files: list[list[object]]) -> Answer:
    def answer(liar: Liar, stream: int, asked: m.Open) -> None:
        liar.files(stream, files)
        liar.say(m.End(), stream)

    return answer


class TreeTests(LiesCase):
    """Trees that are downloaded: names and kinds of entries that lead elsewhere."""

    def tree(self, *rows: tuple[bytes, str], lying: bool) -> Script:
        """A server that lists this tree and gives every file the same content; `lying`: all of it at once."""

        def answer(liar: Liar, stream: int, asked: m.Open) -> None:
            match asked:
                case m.List(path=path):
                    # What lies below another directory is told there, and a name that is no name everywhere.
                    top = b"".join(part + b"/" for part in map(os.fsencode, path.parts[1:]))
                    below = [(name[len(top) :], kind) for name, kind in rows if name.startswith(top)]
                    shown = [row for row in below if lying or b"/" not in row[0]]
                    liar.entries(stream, *((name, kind, 4, 0) for name, kind in shown))
                    liar.say(m.End(), stream)
                case m.Stat():
                    liar.entries(stream, (b"tree", "directory", 0, 0))
                    liar.say(m.End(), stream)
                case m.ReadFiles(paths=paths):
                    hashed = blake3(b"evil").digest()
                    liar.files(stream, [[_spelled(path.parts), 0, hashed, b"evil"] for path in paths])
                    liar.say(m.End(), stream)
                case m.Read():
                    liar.content(stream, 4)
                    liar.data(stream, b"evil")
                    liar.finish(stream, b"evil")
                case _:
                    liar.say(m.Reset(9), stream)

        return answering(answer)

    def fetch(self, what: str, *rows: tuple[bytes, str]) -> Exception | None:
        """Download a tree that lies; nothing changes outside, whatever comes of it."""

        def act(client: Client) -> object:
            return client.download_directory("/tree", str(self.destination))

        raised = None
        for lying in (True, False):
            raised = self.lie(f"{what}, {lying=}", self.tree(*rows, lying=lying), act)
        return raised

    def test_control(self) -> None:
        """An honest tree arrives: otherwise the rest would show nothing."""
        self.assertIsNone(self.fetch("honest", (b"d", "directory"), (b"d/f", "file"), (b"g", "file")))
        found = {path.relative_to(self.destination).as_posix() for path in self.destination.rglob("*")}
        self.assertLessEqual({"tree/d/f", "tree/g"}, found, sorted(self.here.rglob("*")))

    def test_names(self) -> None:
        """Names that lead out or that are reserved, parents that were never listed or are no directories."""
        for name in (
            b"..",
            b"../outside/x",
            b"/tmp/x",
            b"d/../../outside/x",
            b".fileexport/x",
            b".fileexport",
        ):
            self.fetch(repr(name), (b"d", "directory"), (name, "file"), (name, "directory"))
        self.fetch("no parent", (b"never/listed", "file"))
        self.fetch("below a file", (b"d", "file"), (b"d/f", "file"))
        self.fetch("below a link", (b"d", "link"), (b"d/f", "file"))
        self.fetch("twice", (b"d", "file"), (b"d", "directory"), (b"d/f", "file"), (b"d", "file"))

    def test_links(self) -> None:
        """Links that are there already are followed by no file and no directory of the server."""
        tree = self.destination / "tree"
        tree.mkdir()
        (tree / "out").symlink_to(self.here / "outside")
        (tree / "precious").symlink_to(self.here / "outside" / "precious")
        (tree / "new").symlink_to(self.here / "outside" / "new")
        for kind in ("file", "directory"):
            self.fetch(f"a link, as {kind}", (b"out", kind), (b"precious", kind), (b"new", kind))
        self.fetch("below a link", (b"out", "directory"), (b"out/x", "file"), (b"out/precious", "file"))

    def test_linked_destination(self) -> None:
        """The tree's own top is a link there: nothing goes where it leads."""
        (self.destination / "tree").symlink_to(self.here / "outside", target_is_directory=True)
        self.fetch("a link at the top", (b"precious", "file"), (b"x", "file"))


def _spelled(parts: tuple[str, ...]) -> bytes:
    return "/".join(parts).encode("utf-8", "surrogateescape")


class LoginTests(LiesCase):
    """Lies before the client is let in."""

    def test_logins(self) -> None:
        """Whatever stands there, the call ends with a typed error, and in time."""
        for what, script in lies.LOGINS.items():
            raised = self.lie(what, script, lambda client: client.list_files("/"))
            self.assertIsNotNone(raised, f"let in by: {what}")

    def test_strange_server(self) -> None:
        """One that does not know the token cannot pretend to: its answer is not believed."""

        def strange(liar: Liar) -> None:
            liar.login(bytes(32))
            stream, _ = liar.hear()
            honest(liar, stream, m.List(_ROOT))

        raised = self.lie("a strange server", strange, lambda client: client.list_files("/"))
        self.assertIsInstance(raised, AuthenticationError)
        assert raised is not None
        self.assertEqual(row_for(raised).exit, 6)


_ROOT = RelPath()


class HereTests(LiesCase):
    """The control of all that."""

    def test_honest(self) -> None:
        """The same server without a lie is believed: its file arrives."""

        def fetch(client: Client) -> object:
            return client.download_file("/honest", str(self.destination))

        self.assertIsNone(self.lie("honest", answering(honest), fetch))
        self.assertEqual(Path(self.destination, "honest").read_bytes(), b"honest")
