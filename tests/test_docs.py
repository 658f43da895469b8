"""The manual says what the code does: routes, limits, rooms, and the commands in its examples."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from urllib.parse import urlsplit

import click
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

import fileexport
from fileexport import (
    assembly,
    callback_calls,
    callbacks,
    gate,
    http_bodies,
    http_jobs,
    http_receiving,
    jobs,
    paths,
    resumable_files,
    sessions,
    shares,
)
from fileexport.cli import COMMANDS, SECTIONS, main
from fileexport.config import Anonymous, Settings
from fileexport.disk import resolve, sender, state, uploads_store
from fileexport.disk.jail import Jail
from fileexport.exports import MAX_LISTED, Exports
from fileexport.http_bodies import Bodies
from fileexport.http_resource import Surroundings
from fileexport.http_rooms import HttpRooms
from fileexport.tokens import Right, TokenTable
from fileexport.web import connection, directory, forms, head, intake, ranges, request
from fileexport.web.access import Doorkeeper, Policy
from fileexport.web.origin import Names
from fileexport.web.routes import Answer, Open, Route, Routes
from tests.helpers import Immediate
from tests.rooms import Rooms

CHECKOUT = Path(__file__).resolve().parent.parent
PACKAGE = Path(fileexport.__file__).resolve().parent
#: Pages whose examples are meant to be typed.
EXAMPLES = ("README.md", "docs/tutorial.md", "docs/http.md", "docs/operating.md", "docs/library.md")
#: Those among them that are followed from their first line to the last.
FOLLOWED = ("README.md", "docs/tutorial.md")
#: What a reader's machine has, beside our own commands.
TOOLS = frozenset("cd curl echo export head make mkdir openssl python3 seq umask wget".split())
#: What the lines before have put there.
MADE = frozenset((".venv/bin/twistd", "~/fileexport-client/bin/pip"))
#: What changes whether a daemon runs.
STARTS = re.compile(r"make run|fileexport (run|start)")
STOPS = re.compile(r"fileexport stop|.*/stop")
#: What may stand before a command on its line.
OPERATORS = frozenset(("|", "||", "&&", ";", "(", "$("))


def page(name: str) -> str:
    """A page of the checkout as text."""
    return (CHECKOUT / name).read_text(encoding="utf-8")


def table(text: str, head: str) -> list[list[str]]:
    """The rows of the one Markdown table whose heading is `head`, as cells."""
    lines = text.splitlines()
    [start] = [number for number, line in enumerate(lines) if line == head]
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
    return rows


def typed(text: str) -> Iterator[str]:
    """What is typed in the `console` blocks of a page, a line each."""
    for block in re.findall(r"^```console\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        yield from (line[2:] for line in block.splitlines() if line.startswith("$ "))


def commands(line: str) -> Iterator[list[str]]:
    """The commands of a line as words: those in a pipe, and those in `$(…)` too."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words: list[list[str]] = [[]]
    for word in lexer:
        if word in OPERATORS or word == ")":
            words.append([])
        elif words[-1] or not re.fullmatch(r"[A-Z]+=.*", word):
            words[-1].append(word)
    return (command for command in words if command)


def routes(root: str) -> Routes[Answer]:
    """The door's own routes."""
    around = Surroundings(
        owner=lambda transport: None,
        is_proxy=lambda host: False,
        enter=lambda client: None,
        stop=lambda: None,
        metrics=lambda: (b"", b""),
        names=Names(frozenset()),
    )
    keeper = Doorkeeper(TokenTable(), Policy(Anonymous.NONE, uid=lambda: 0, root_is_public=lambda: False))
    jail = Jail(root)
    try:
        clock, worker = Clock(), Immediate()
        exports, bodies = Exports(jail), Bodies(clock, worker, worker)
        rooms = Rooms(clock, jail, worker)
        return HttpRooms(clock, exports, keeper, worker, bodies, rooms, around).door.routes
    finally:
        jail.close()


def rights_of(route: Route[Answer]) -> list[str]:
    """The rights of a route as the manual names them; where there are several, each with its methods."""
    needed: dict[str, list[str]] = {}
    for method, right in route.rights.items():
        name = "none" if isinstance(right, Open) else str(right.name).lower().replace("|", " and ")
        needed.setdefault(name, []).append(method.decode("ascii"))
    if len(needed) == 1:
        return list(needed)
    return [f"{name} ({', '.join(methods)})" for name, methods in needed.items()]


class RouteTests(SynchronousTestCase):
    """The table of routes in docs/http.md."""

    def test_table(self) -> None:
        """The manual's routes are the door's: path, methods, right, who may ask, form of errors, in order."""
        found = []
        for route in routes(str(CHECKOUT)).all:
            names = ", ".join(rights_of(route))
            found.append(
                [
                    f"`{route.path}`",
                    b", ".join(route.rights).decode("ascii"),
                    names + ", from this machine only" * route.local_only,
                    "text" if route.plain else "page",
                ]
            )
        rows = table(page("docs/http.md"), "| path | methods | right | errors | answer |")
        self.assertEqual([row[:4] for row in rows], found)

    def test_rights(self) -> None:
        """The manual explains every right that a route can need, and no other."""
        rows = table(page("docs/operating.md"), "| right | allows |")
        self.assertEqual([row[0] for row in rows], [f"`{str(right.name).lower()}`" for right in Right])

    def test_addresses(self) -> None:
        """An address in an example that looks like a route of our own is one."""
        known = routes(str(CHECKOUT))
        for name in EXAMPLES:
            for url in re.findall(r'https?://[^\s"`>)]+', page(name)):
                path = urlsplit(url).path
                if path.count("/") == 1 and path not in ("/", "/nothing") and "127.0.0.1" in url:
                    self.assertEqual(known.find(path.encode("ascii"))[0].path, path, url)


class LimitTests(SynchronousTestCase):
    """The table of limits in docs/http.md."""

    def test_table(self) -> None:
        """The manual's limits are the constants of the code."""
        self.assertEqual(
            table(page("docs/http.md"), "| limit | value |"),
            [
                ["request line", f"{head.MAX_LINE >> 10} KiB"],
                ["header fields, all together", f"{head.MAX_FIELDS_SIZE >> 10} KiB"],
                ["header fields", f"{head.MAX_FIELDS}"],
                ["body that is read and ignored", f"{intake.MAX_IGNORED_BODY >> 10} KiB"],
                ["time for a whole header, from its first byte", f"{connection.HEAD_TIME:.0f} s"],
                ["time for a body", f"{connection.BODY_TIME:.0f} s"],
                ["parameters of a query", f"{request.MAX_PARAMETERS}"],
                ["name", f"{paths.MAX_NAME} bytes"],
                ["path", f"{paths.MAX_PATH} bytes"],
                ["names in a path", f"{paths.MAX_DEPTH}"],
                ["links followed in a path", f"{resolve.MAX_LINKS}"],
                ["ranges in a request", f"{ranges.MAX_RANGES}"],
                ["bytes of a Range field", f"{ranges.MAX_RANGE_FIELD}"],
                ["compressed answers at once", f"{http_bodies.MAX_STREAMS}"],
                ["entries of a listing", f"{MAX_LISTED}"],
                ["idle connection", f"{connection.IDLE_TIME:.0f} s"],
                ["reader that takes nothing", f"{sender.STALL:.0f} s"],
                ["connections, unless `--max-concurrent` says otherwise", f"{Settings().max_concurrent}"],
                ["connections from one address", f"{gate.PER_ADDRESS}"],
                ["JSON that asks for a job", f"{http_jobs.MAX_BODY >> 10} KiB"],
                ["jobs that wait, beside one for each core that runs", f"{jobs.MAX_QUEUED}"],
                ["jobs that are kept after their end, for a day at most", f"{state.KEPT_JOBS}"],
                ["time that one request may wait for a job", f"{http_jobs.MAX_WAIT:.0f} s"],
                [
                    "streams of events at once, and of one owner",
                    f"{http_jobs.MAX_EVENT_STREAMS} and {http_jobs.MAX_OWN_STREAMS}",
                ],
                [
                    "callbacks at once, and to one host and port",
                    f"{callbacks.AT_ONCE} and {callbacks.AT_ONE_PLACE}",
                ],
                [
                    "callback: time for all of it, bytes of its answer that are read",
                    f"{callback_calls.CALL_TIME:.0f} s, {callback_calls.MAX_BODY >> 10} KiB",
                ],
                ["attempts to deliver a callback", f"{len(callbacks.DELAYS)}"],
                *self.of_uploads(),
                *self.of_people(),
            ],
        )

    def of_uploads(self) -> list[list[str]]:
        """What bounds files that come in."""
        receiving = http_receiving
        return [
            [
                "bodies that are stored at once, and bytes of all of them in memory",
                f"{receiving.MAX_BODIES} and {receiving.BUDGET >> 20} MiB",
            ],
            [
                f"body that is stored: time for each further {intake.STEP >> 10} KiB",
                f"{connection.BODY_TIME:.0f} s",
            ],
            ["files of a form", f"{forms.MAX_FILES}"],
            [
                "entries selected in a form, and its bytes",
                f"{forms.MAX_SELECTED} and {forms.MAX_BODY >> 20} MiB",
            ],
            ["unfinished resumable uploads of one owner", f"{resumable_files.MAX_OWN}"],
            [
                "time that an unfinished resumable upload is kept after its last byte",
                f"{uploads_store.KEPT_TIME / 3600:.0f} h",
            ],
        ]

    def of_people(self) -> list[list[str]]:
        """What bounds who is signed in, what they share, and what they see."""
        return [
            ["sessions of one token, and of all", f"{sessions.MAX_OWN_SESSIONS} and {sessions.MAX_SESSIONS}"],
            ["time that a session lasts", f"{sessions.SESSION_TIME / 86_400:.0f} d"],
            ["share links of one owner, and of all", f"{shares.MAX_OWN_SHARES} and {shares.MAX_SHARES}"],
            ["entries of a page in a browser", f"{directory.PAGE_LENGTH}"],
        ]

    def test_port(self) -> None:
        """The examples use the port that the daemon listens on by default."""
        for name in set(EXAMPLES) - {"docs/library.md"}:
            self.assertIn(f"127.0.0.1:{assembly.DEFAULT_PORT}/", page(name))


class RoomTests(SynchronousTestCase):
    """The table of rooms in README.md, which docs/architecture.md includes."""

    def test_table(self) -> None:
        """Every module of the package has its place in the table of rooms, and every room is there."""
        rows = table(page("README.md"), "| room | owns, in one sentence |")
        named = [name for row in rows for name in re.findall(r"`([^`]+)`", row[0])]
        self.assertEqual(len(named), len(set(named)))
        rooms = set(named) - {"twisted/plugins/"}
        for room in rooms:
            self.assertTrue((PACKAGE / room).exists(), room)
        for path in PACKAGE.rglob("*.py"):
            place = path.relative_to(PACKAGE)
            if place.name != "__init__.py":
                self.assertTrue(
                    rooms & {str(place), *(f"{above}/" for above in place.parents)}, f"{place} has no room"
                )

    def test_sentences(self) -> None:
        """Each room owns what it owns in one sentence."""
        for name, sentence in table(page("README.md"), "| room | owns, in one sentence |"):
            self.assertRegex(sentence, r"^[A-Z`].*[^.]\.$", name)
            self.assertNotRegex(sentence, r"\. [A-Z]", name)

    def test_included(self) -> None:
        """The marks between which the architecture page takes the house from README are there, in order."""
        text = page("README.md")
        marks = re.findall(r"^:(?:start-after|end-before): (.+)$", page("docs/architecture.md"), re.MULTILINE)
        self.assertEqual([text.count(mark) for mark in marks], [1, 1])
        self.assertLess(*(text.index(mark) for mark in marks))

    def test_short(self) -> None:
        """README stays short enough to be read."""
        self.assertLess(len(page("README.md").splitlines()), 240)


class ExampleTests(SynchronousTestCase):
    """The `console` blocks."""

    def test_known_commands(self) -> None:
        """Examples type only what a reader has: common tools, make's targets, our own commands."""
        targets = set(re.findall(r"^([a-z]+):", page("Makefile"), re.MULTILINE))
        for name in EXAMPLES:
            lines = list(typed(page(name)))
            self.assertTrue(lines, name)
            for line in lines:
                for command, *words in commands(line):
                    if command == "fileexport":
                        self.check_options(words, line)
                    elif command == "make":
                        self.assertIn(words[0], targets, line)
                    elif command not in MADE:
                        self.assertIn(command, TOOLS, line)

    def check_options(self, words: list[str], line: str) -> None:
        """`fileexport WORDS` is a command with options that it has."""
        self.assertIn(words[0], COMMANDS, line)
        found = main.get_command(click.Context(main), words[0])
        assert found is not None
        known = {spelling for parameter in found.params for spelling in parameter.opts}
        options = {word for word in words if word.startswith("-")}
        self.assertEqual(options - known, set(), line)

    def test_can_be_followed(self) -> None:
        """What is to be typed from top to bottom asks a daemon while one runs, and finds our commands."""
        for name in FOLLOWED:
            runs = is_found = False
            for line in typed(page(name)):
                self.assertNotRegex(line, r"…|\b[A-Z]+-[A-Z-]+\b", name)
                is_found = is_found or line.startswith("export PATH=")
                asks = re.search(r"https?://|fileexport (\w+)", line)
                if asks is not None and not STARTS.match(line):
                    self.assertTrue(is_found or asks[1] is None, line)
                    asked = asks[1] is None or asks[1] in SECTIONS["Files on a server"]
                    self.assertTrue(runs or not asked, line)
                runs = not STOPS.match(line) and (runs or STARTS.match(line) is not None)

    def test_commands_are_read(self) -> None:
        """A pipe, an assignment and a substitution do not hide a command from these tests."""
        self.assertEqual(list(commands("a x | b 'y | z' > f")), [["a", "x"], ["b", "y | z", ">", "f"]])
        self.assertEqual(list(commands("A=$(b c) d")), [["b", "c"], ["d"]])

    def test_no_skipped_heading(self) -> None:
        """Headings go down one level at a time."""
        for path in (CHECKOUT / "docs").glob("*.md"):
            text = re.sub(r"^```.*?^```", "", page(f"docs/{path.name}"), flags=re.DOTALL | re.MULTILINE)
            levels = [len(marks) for marks in re.findall(r"^(#+) ", text, re.MULTILINE)]
            for upper, lower in pairwise(levels):
                self.assertLessEqual(lower, upper + 1, path.name)
