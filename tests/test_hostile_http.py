"""Every hostile path through every route that takes one, for each kind of caller.

Deletions are written down instead of carried out, so that every vector meets the whole tree.
"""

from __future__ import annotations

import gzip
import os
import stat
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote

from fileexport.disk.calls import Calls
from fileexport.paths import RESERVED
from tests.hostile import HIDDEN, NEIGHBOUR, OPEN, RAW_URLS, SECRET, UNDER, VECTORS, build
from tests.http_client import HttpCase, HttpHarness, Response

#: No vector may be refused for want of a right: then it would not have reached the disk.
_TOKEN = "token-of-a-part"
#: What may be answered at all: what there is, a redirect, and refusals; never a failure.
_EXPECTED = {200, 201, 204, 301, 400, 403, 404, 405, 409, 414}


class WrittenDown(Calls):
    """The disk's calls, but nothing is removed: `removed` says what would have been, by its real path."""

    def __init__(self) -> None:
        self.removed: list[Path] = []

    def unlink(self, name: str, *, dir_fd: int) -> None:
        if stat.S_ISDIR(os.stat(name, dir_fd=dir_fd, follow_symlinks=False).st_mode):
            raise AssertionError(f"{name!r} is a directory")
        self.removed.append(Path(os.readlink(f"/proc/self/fd/{dir_fd}"), name))


def by_query(text: str | bytes) -> str:
    """A path as the value of a parameter."""
    return quote(os.fsencode(text), safe="")


def by_url(path: str) -> str:
    """A path as a URL in which each byte but the slashes is percent-encoded."""
    return "".join("/" if byte == 0x2F else f"%{byte:02X}" for byte in os.fsencode(path))


def split(path: str) -> str:
    """A path as the parameters `dir` and `name`."""
    directory, _, name = path.rstrip("/").rpartition("/")
    return f"dir={by_query(directory)}&name={by_query(name)}"


#: Targets of one vector, for each route that takes a path.
ROUTES: dict[str, Callable[[str], list[str]]] = {
    "list": lambda path: [
        f"/list?dir={by_query(path)}",
        f"/list?dir={by_query(path)}&details=1&recursive=1",
        f"/list?dir={UNDER}&prefix={by_query(path)}",
    ],
    "get": lambda path: [f"/get?{split(path)}", f"/get?dir={UNDER}&name={by_query(path)}"],
    "compress": lambda path: [f"/get?{split(path)}&compress=gz"],
    "delete": lambda path: [
        f"/delete?{split(path)}",
        f"/delete?dir={by_query(path)}&prefix=*&suffix=*",
        f"/delete?dir={UNDER}&name={by_query(path)}",
        f"/delete?dir={UNDER}&prefix={by_query(path)}",
    ],
    "browse": lambda path: [f"/{by_url(path)}", f"/{by_url(path.rstrip('/'))}/"],
    "json": lambda path: [f"/{by_url(path.rstrip('/'))}/?json"],
    "files": lambda path: [f"/-/files/{by_url(path)}", f"/-/files/{by_url(path.rstrip('/'))}/?json"],
    "tar": lambda path: [f"/tar?{split(path)}", f"/tar?dir={by_query(path)}&name=x&host=x&port=9"],
}


def is_compressed(answer: Response) -> bool:
    """Whether the body was compressed for this answer."""
    return answer.fields("Content-Type") == ["application/gzip"] and answer.status == 200


class HostileCase:
    """The tests; a subclass says who asks, and what they may not see."""

    #: For `HttpHarness`.
    settings: ClassVar[dict[str, Any]]
    headers: ClassVar[dict[str, str]] = {}
    forbidden: ClassVar[tuple[str, ...]]
    #: The part of the root in which something may be removed, and whether hidden names belong to it.
    part: ClassVar[str]
    sees_hidden: ClassVar[bool]

    root: Path
    web: HttpHarness
    harness: Callable[..., HttpHarness]
    calls: WrittenDown
    assertEqual: Any
    assertGreaterEqual: Any

    def check(self, targets: Iterable[str | bytes], method: str = "GET", body: bytes = b"") -> int:
        """Ask for all these; how many answers hold what may be seen."""
        wrong: list[str] = []
        seen = 0
        for target in targets:
            # Pages of errors take longer than all the rest.
            answer = self.web.request(method, target, {"Accept": "application/json"} | self.headers, body)
            content = gzip.decompress(answer.body) if is_compressed(answer) else answer.body
            everything = content.decode("latin-1") + repr(answer.headers) + answer.reason
            wrong += [f"{target!r} shows {marker}" for marker in self.forbidden if marker in everything]
            if answer.status not in _EXPECTED:
                wrong.append(f"{target[:80]!r}… is {answer.status}")
            seen += OPEN in everything or "file.txt" in content.decode("latin-1")
        self.assertEqual(wrong, [])
        return seen

    def check_route(self, route: str) -> None:
        """Every vector through one route; what may be seen is seen there, or the test says nothing."""
        self.check(target for vector in VECTORS for target in ROUTES[route](vector.path))
        plain = (target for path in (UNDER, f"{UNDER}/file.txt") for target in ROUTES[route](path))
        self.assertGreaterEqual(self.check(plain), 1)

    def test_list(self) -> None:
        """No directory outside is listed, whole or by the beginning of its names."""
        self.check_route("list")

    def test_get(self) -> None:
        """No file outside is got."""
        self.check_route("get")

    def test_get_compressed(self) -> None:
        """No file outside is compressed."""
        self.check_route("compress")

    def test_browse(self) -> None:
        """No page or file outside is shown."""
        self.check_route("browse")

    def test_browse_json(self) -> None:
        """No directory outside is shown as JSON."""
        self.check_route("json")

    def test_files(self) -> None:
        """The way around our own paths leads no further."""
        self.check_route("files")

    def test_tar(self) -> None:
        """Nothing outside is found by what /tar answers."""
        self.check(target for vector in VECTORS for target in ROUTES["tar"](vector.path))

    def test_raw_urls(self) -> None:
        """No encoding of a URL leads outside, as a path, with ?json, or as a parameter."""
        for form in (
            b"%s",
            b"%s?json",
            b"/list?dir=%s",
            b"/get?dir=/&name=%s",
            b"/get?dir=%s&name=secret.txt",
        ):
            self.check(form % url for url in RAW_URLS)

    def test_delete(self) -> None:
        """Nothing is removed but what the caller may see: no file outside, no directory, nothing of ours."""
        targets = [target for vector in VECTORS for target in ROUTES["delete"](vector.path)]
        raw = (
            b"/delete?dir=%s&prefix=*&suffix=*",
            b"/delete?dir=/&name=%s",
            b"/delete?dir=%s&name=secret.txt",
        )
        self.check([*targets, *(form % url for form in raw for url in RAW_URLS)])
        self.check_removed()

    def test_delete_by_path(self) -> None:
        """So it is by DELETE."""
        targets = [target for vector in VECTORS for target in ROUTES["files"](vector.path)]
        self.check([*targets, *RAW_URLS], "DELETE")
        self.check_removed()

    def check_removed(self) -> None:
        """Only what the caller may see was removed."""
        top = self.root.resolve() / self.part
        removed = {path.relative_to(top) for path in self.calls.removed}
        self.assertGreaterEqual(len(removed), 20)
        self.assertEqual({path for path in removed if RESERVED in path.parts}, set())
        hidden = {path for path in removed if any(part.startswith(".") for part in path.parts)}
        self.assertEqual(bool(hidden), self.sees_hidden)

    def test_put(self) -> None:
        """No file is written but where the caller may: none outside, none of ours, none through a link."""
        self.web = self.harness(**self.settings)
        everything = self.root.parent
        before = snapshot(everything)
        targets = [f"/-/files/{by_url(vector.path)}" for vector in VECTORS]
        targets += [f"{target}?parents" for target in targets]
        self.check([*targets, *RAW_URLS], "PUT", b"put")
        after = snapshot(everything)
        changed = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
        self.assertGreaterEqual(len(changed), 20)
        self.assertEqual({after[path] for path in changed}, {b"put"})
        top = (self.root / self.part).relative_to(everything)
        written = {path.relative_to(top) for path in changed}
        self.assertEqual({path for path in written if RESERVED in path.parts}, set())
        hidden = {path for path in written if any(part.startswith(".") for part in path.parts)}
        self.assertEqual(bool(hidden), self.sees_hidden)


def snapshot(directory: Path) -> dict[Path, bytes]:
    """The content of all regular files below a directory, by their path from there."""
    found = {}
    for above, _, names in os.walk(directory):
        for name in names:
            path = Path(above, name)
            if path.is_file() and not path.is_symlink():
                found[path.relative_to(directory)] = path.read_bytes()
    return found


class HostileSetUp(HttpCase):
    """Has the hostile tree and a daemon over it."""

    settings: ClassVar[dict[str, Any]]

    def setUp(self) -> None:
        super().setUp()
        base = self.root
        self.root = base / "root"
        build(self.root, base / "outside")
        self.calls = WrittenDown()
        self.web = self.harness(calls=self.calls, **self.settings)


class LocalCallerTests(HostileCase, HostileSetUp):
    """A process of the daemon's own user, without a token."""

    settings: ClassVar[dict[str, Any]] = {}
    forbidden = (SECRET, HIDDEN)
    part, sees_hidden = "", False


class TokenTests(HostileCase, HostileSetUp):
    """A token for one directory, from anywhere."""

    settings: ClassVar[dict[str, Any]] = {"tokens": f"{_TOKEN} under=/{UNDER}\n", "local": False}
    headers: ClassVar[dict[str, str]] = {"Authorization": f"Bearer {_TOKEN}"}
    forbidden = (SECRET, NEIGHBOUR)
    part, sees_hidden = UNDER, True


class DirectoryTests(HostileCase, HostileSetUp):
    """A daemon that exports one directory of its root."""

    settings: ClassVar[dict[str, Any]] = {"dirs": [UNDER]}
    forbidden = (SECRET, NEIGHBOUR, HIDDEN)
    part, sees_hidden = UNDER, False


class ControlTests(HostileSetUp):
    """The vectors are dangerous: who is careless shows what these tests look for."""

    settings: ClassVar[dict[str, Any]] = {"tokens": f"{_TOKEN}\n"}

    def test_size(self) -> None:
        """There are at least 400 vectors."""
        self.assertGreaterEqual(len(VECTORS), 400)

    def test_careless_server_shows_secrets(self) -> None:
        """Joined to the root and opened, as by a careless server, many vectors lead outside."""
        escaped = sum(SECRET in read(f"{self.root}/{vector.path}") for vector in VECTORS)
        self.assertGreaterEqual(escaped, 100)

    def test_who_may_see_it_sees_it(self) -> None:
        """The same vectors show the neighbour's and hidden files to a token for the whole root."""
        headers = {"Authorization": f"Bearer {_TOKEN}"}
        bodies = [self.web.get(by_url("/" + vector.path), headers).text for vector in VECTORS]
        for marker in (NEIGHBOUR, HIDDEN):
            self.assertGreaterEqual(sum(marker in body for body in bodies), 3, marker)
        self.assertEqual([body for body in bodies if SECRET in body], [])


def read(path: str) -> str:
    """The beginning of a file or the names in a directory, without any care; empty where there is neither."""
    try:
        if os.path.isdir(path):
            return repr(os.listdir(path))
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except (OSError, ValueError):
        return ""
    try:
        return os.read(descriptor, 100).decode("latin-1")
    except OSError:
        return ""
    finally:
        os.close(descriptor)
