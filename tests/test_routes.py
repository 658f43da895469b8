"""The table of routes: every path has its methods, and every method its right."""

from __future__ import annotations

import string
from random import Random
from urllib.parse import unquote_to_bytes

from twisted.trial.unittest import SynchronousTestCase

from fileexport.tokens import Right
from fileexport.web.routes import OWN_NAMES, Open, Route, Routes, acting, one_spelling, reading
from tests.http_client import HttpCase

#: Routes that take more than the right to read, by any method; those of `ACTING` change something by each.
ACTING = {
    "/tar": Right.WRITE,
    "/-/jobs/{id}/redeliver": Right.WRITE,
    "/delete": Right.DELETE,
    "/stop": Right.ADMIN,
    "/-/new/*": Right.WRITE,
    "/-/move/*": Right.WRITE,
    "/-/remove/*": Right.DELETE,
    "/-/shares/{id}": Right.WRITE,
    "/-/shares/{id}/revoke": Right.WRITE,
}
PRIVATE = ACTING | {
    "/-/jobs": Right.WRITE,
    "/-/jobs/{id}": Right.WRITE,
    "/-/jobs/{id}/events": Right.WRITE,
    "/-/events": Right.WRITE,
    "/-/metrics": Right.ADMIN,
    # It shows links, and a link reads.
    "/-/shares": Right.READ | Right.WRITE,
}
#: These have no HEAD either: a POST that only reads, and one that anybody may send.
WITHOUT_HEAD = {*ACTING, "/-/pack/*", "/-/sign-out"}
#: Open by every method, and open only for the question what there is.
OPEN_TO_ALL = {
    *("/favicon.ico", "/-/static/*", "/-/health", "/-/openapi.json", "/-/*"),
    *("/-/sign-in", "/-/sign-out", "/-/share/*"),
}
OPEN_TO_OPTIONS = {"/-/uploads", "/-/uploads/{id}"}
#: The exported tree: what each method does to it needs a right of its own.
TREE = {
    **dict.fromkeys((b"GET", b"HEAD"), Right.READ),
    **dict.fromkeys((b"PUT", b"POST"), Right.WRITE),
    b"DELETE": Right.DELETE,
}


class DoorTableTests(HttpCase):
    """The routes that the door really has."""

    def setUp(self) -> None:
        super().setUp()
        self.routes = self.harness().door.routes

    def test_every_method_of_every_route_declares_a_right(self) -> None:
        """No route answers a method that needs no right, unless it says aloud that it is open."""
        for route in self.routes.all:
            self.assertTrue(route.rights, route.path)
            for method, right in route.rights.items():
                declared = right is Open.TO_ALL or isinstance(right, Right)
                self.assertTrue(declared, f"{method!r} {route.path} declares {right!r}")
                self.assertNotEqual(right, Right(0), route.path)

    def test_open_routes_are_only_these(self) -> None:
        """Nothing that is exported is behind a route that is open to all, but what a share link shows."""
        found = {route.path for route in self.routes.all if Open.TO_ALL in route.rights.values()}
        self.assertEqual(found, OPEN_TO_ALL | OPEN_TO_OPTIONS)
        for route in self.routes.all:
            if route.path in OPEN_TO_OPTIONS:
                needed = {method: right for method, right in route.rights.items() if method != b"OPTIONS"}
                self.assertEqual(set(needed.values()), {Right.WRITE}, route.path)
            elif route.path in OPEN_TO_ALL:
                self.assertEqual(set(route.rights.values()), {Open.TO_ALL}, route.path)

    def test_tree(self) -> None:
        """Reading, writing and deleting at the tree's own paths need their own rights."""
        found = {route.path: route.rights for route in self.routes.all if b"PUT" in route.rights}
        self.assertEqual(found, dict.fromkeys(("/-/files", "/-/files/*", "/*"), TREE))

    def test_private_routes_need_their_own_right_by_every_method(self) -> None:
        """No method of such a route is cheaper than another."""
        found = {
            route.path: set(route.rights.values())
            for route in self.routes.all
            if not set(route.rights.values()) & {Right.READ, Open.TO_ALL}
        }
        self.assertEqual(found, {path: {right} for path, right in PRIVATE.items()})

    def test_head_never_acts(self) -> None:
        """HEAD is among the methods of reading routes and of no other."""
        for route in self.routes.all:
            self.assertEqual(b"HEAD" in route.rights, route.path not in WITHOUT_HEAD, route.path)

    def test_own_names_are_the_first_segments_of_our_paths(self) -> None:
        """The names that pages link around are exactly those that our routes take in the root."""
        found = {route.path.split("/")[1] for route in self.routes.all if route.path != "/*"}
        self.assertEqual(found, OWN_NAMES)

    def test_stop_is_for_this_machine_only(self) -> None:
        """The stop, and nothing else, is refused to every other machine."""
        self.assertEqual([route.path for route in self.routes.all if route.local_only], ["/stop"])

    def test_the_export_api_speaks_text(self) -> None:
        """Errors of the paths that scripts use are text, also where the method is wrong."""
        plain = {route.path for route in self.routes.all if route.plain}
        export = {"/list", "/get", "/tar", "/delete", "/stop", "/-/health"}
        jobs = {"/-/jobs", "/-/jobs/{id}", "/-/jobs/{id}/events", "/-/jobs/{id}/redeliver", "/-/events"}
        uploads = {"/-/uploads", "/-/uploads/{id}"}
        entries = {"/-/new/*", "/-/move/*", "/-/remove/*", "/-/pack/*"}
        shares = {"/-/shares", "/-/shares/{id}", "/-/shares/{id}/revoke"}
        others = {"/-/openapi.json", "/-/metrics"}
        self.assertEqual(plain, export | jobs | uploads | entries | shares | others)

    def test_no_path_stands_twice(self) -> None:
        """A route cannot hide another one."""
        paths = [route.path for route in self.routes.all]
        self.assertEqual(len(paths), len(set(paths)))


class FindTests(SynchronousTestCase):
    """Which route a path has."""

    def setUp(self) -> None:
        paths = ("/*", "/list", "/-/*", "/-/files/*", "/-/jobs", "/-/jobs/{id}", "/-/jobs/{id}/events")
        self.routes = Routes([Route(path, path, reading()) for path in paths])

    def test_table(self) -> None:
        """An exact path first, then the longest fixed part; what is below a star keeps its slash."""
        table = {
            b"/list": ("/list", b""),
            b"/list/": ("/*", b"/list/"),
            b"/List": ("/*", b"/List"),
            b"/lis": ("/*", b"/lis"),
            b"/listx": ("/*", b"/listx"),
            b"//list": ("/*", b"//list"),
            b"/%6cist": ("/list", b""),
            b"/%6C%69%73%74": ("/list", b""),
            b"/%256cist": ("/*", b"/%256cist"),
            b"/%25%36%63ist": ("/*", b"/%256cist"),
            b"/%%36%63ist": ("/*", b"/%256cist"),
            b"/%%6cist": ("/*", b"/%25list"),
            b"/%6%63ist": ("/*", b"/%256cist"),
            b"/%": ("/*", b"/%25"),
            b"/%2Flist": ("/*", b"/%2Flist"),
            b"/%c3%BC%20": ("/*", b"/%c3%BC%20"),
            b"/%2E%2e/list": ("/*", b"/../list"),
            b"/": ("/*", b"/"),
            b"/-": ("/*", b"/-"),
            b"/-/": ("/-/*", b"/"),
            b"/-/files": ("/-/*", b"/files"),
            b"/-/files/": ("/-/files/*", b"/"),
            b"/-/files/list": ("/-/files/*", b"/list"),
            b"/-/files//a": ("/-/files/*", b"//a"),
            b"/-/filesx": ("/-/*", b"/filesx"),
            b"/%2d/files/a": ("/-/files/*", b"/a"),
            b"/-/files/%61/%2561": ("/-/files/*", b"/a/%2561"),
            b"/-%2ffiles/a": ("/*", b"/-%2ffiles/a"),
            b"/%2d/%6Aobs/a%2Eb": ("/-/jobs/{id}", b"a.b"),
            b"/-/jobs/%7Bid%7D": ("/-/jobs/{id}", b"%7Bid%7D"),
            b"/\xb0": ("/*", b"/\xb0"),
            b"/-/files/a\nb": ("/-/files/*", b"/a\nb"),
            b"/-/jobs": ("/-/jobs", b""),
            b"/-/jobs/": ("/-/*", b"/jobs/"),
            b"/-/jobs/a.b": ("/-/jobs/{id}", b"a.b"),
            b"/-/jobs/\xb0": ("/-/jobs/{id}", b"\xb0"),
            b"/-/jobs/a/events": ("/-/jobs/{id}/events", b"a"),
            b"/-/jobs/a/b/events": ("/-/*", b"/jobs/a/b/events"),
            b"/-/jobs/a/": ("/-/*", b"/jobs/a/"),
            b"/-/jobs//events": ("/-/*", b"/jobs//events"),
            b"/-/jobs/{id}": ("/-/jobs/{id}", b"{id}"),
        }
        found = {path: (route.path, below) for path in table for route, below in [self.routes.find(path)]}
        self.assertEqual(found, table)

    def test_one_spelling(self) -> None:
        """Only unreserved characters lose their encoding, and all that is decoded later is what it was."""
        unreserved = (string.ascii_letters + string.digits + "-._~").encode("ascii")
        for byte in range(256):
            for encoded in (b"%%%02x" % byte, b"%%%02X" % byte):
                plain = bytes([byte]) if byte in unreserved else encoded
                self.assertEqual(one_spelling(encoded), plain)
        random = Random(7)
        for _ in range(2000):
            path = bytes(random.choices(b"%%%%%2356CcDfF/a", k=random.randrange(12)))
            found = one_spelling(path)
            self.assertEqual(unquote_to_bytes(found), unquote_to_bytes(path), path)
            self.assertEqual(one_spelling(found), found, path)

    def test_order_of_the_table_does_not_matter(self) -> None:
        """The longest covering route is found wherever it stands."""
        turned = Routes(tuple(reversed(self.routes.all)))
        self.assertEqual(turned.find(b"/-/files/a")[0].path, "/-/files/*")

    def test_allow_names_the_methods(self) -> None:
        """What Allow says is what the route takes."""
        self.assertEqual(Route("/x", None, acting(Right.DELETE, b"POST")).allow, b"GET, POST")
        self.assertEqual(Route("/x", None, reading()).allow, b"GET, HEAD")

    def test_acts(self) -> None:
        """A route acts by GET where it was declared so."""
        self.assertTrue(Route("/x", None, acting(Right.DELETE, b"POST")).acts)
        self.assertFalse(Route("/x", None, reading(Right.ADMIN)).acts)
        self.assertFalse(Route("/x", None, {**reading(Right.WRITE), b"POST": Right.WRITE}).acts)
