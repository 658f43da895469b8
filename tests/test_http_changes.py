"""The export API's changing half: /delete, /stop, and what /tar refuses."""

from __future__ import annotations

import os
from urllib.parse import quote

from tests.http_client import HttpCase, Response

FILES = ("a.sql", "b.sql", "a.txt", "*", "sub/a.sql")


class DeleteTests(HttpCase):
    """/delete by each of its methods."""

    def setUp(self) -> None:
        super().setUp()
        for name in FILES:
            self.write("d/" + name)
        self.web = self.harness()

    def left(self) -> set[str]:
        """The files that are still there."""
        found = (path.relative_to(self.root / "d") for path in self.root.rglob("*") if not path.is_dir())
        return {str(path) for path in found}

    def delete(self, query: str, method: str = "GET") -> Response:
        """The answer to /delete with these parameters."""
        return self.web.request(method, "/delete?" + query)

    def removed(self, query: str, method: str = "GET") -> tuple[str, set[str]]:
        """The text of a successful answer, and the files that it took away."""
        before = self.left()
        answer = self.delete(query, method)
        self.assertEqual((answer.status, answer.field("Content-Type")), (200, "text/plain; charset=utf-8"))
        return answer.text, before - self.left()

    def assertRefused(self, query: str, status: int, sentence: str) -> None:
        """The request is refused with this sentence, and nothing is gone."""
        answer = self.delete(query)
        expected = (status, f"ERROR - {sentence}", f"ERROR - {sentence}")
        self.assertEqual((answer.status, answer.text, answer.reason), expected)
        self.assertEqual(self.left(), set(FILES), query)

    def test_by_name(self) -> None:
        """One file is removed by its name, by every method that acts."""
        for method in ("GET", "POST", "DELETE"):
            self.write("d/a.sql")
            self.assertEqual(self.removed("dir=d&name=a.sql", method), ("deleted 1 file", {"a.sql"}))

    def test_by_prefix_and_suffix(self) -> None:
        """A prefix and a suffix choose by the ends of a name; given together both must match."""
        self.assertEqual(self.removed("dir=d&prefix=a.&suffix=.sql"), ("deleted 1 file", {"a.sql"}))
        self.assertEqual(self.removed("dir=d&suffix=.sql"), ("deleted 1 file", {"b.sql"}))
        self.assertEqual(self.removed("dir=d&prefix=a"), ("deleted 1 file", {"a.txt"}))
        self.assertEqual(self.removed("dir=d&prefix=a"), ("deleted 0 files", set()))

    def test_plural(self) -> None:
        """The answer counts what is gone, in words for one and for more."""
        self.assertEqual(self.removed("dir=d&suffix=.sql"), ("deleted 2 files", {"a.sql", "b.sql"}))
        self.assertEqual(self.removed("dir=d&suffix=.sql"), ("deleted 0 files", set()))
        self.assertEqual(self.removed("dir=d/sub&suffix=.sql", "POST"), ("deleted 1 file", {"sub/a.sql"}))

    def test_every_file(self) -> None:
        """Two stars together are every file of the directory and none below it."""
        everything = set(FILES) - {"sub/a.sql"}
        self.assertEqual(self.removed("dir=d&prefix=*&suffix=*"), ("deleted 4 files", everything))
        self.assertTrue((self.root / "d/sub").is_dir())

    def test_a_star_is_a_name(self) -> None:
        """A file that is called `*` is removed by its name, and nothing else with it."""
        self.assertEqual(self.removed("dir=d&name=*"), ("deleted 1 file", {"*"}))

    def test_no_other_pattern(self) -> None:
        """A star within a prefix stands for itself."""
        self.assertEqual(self.removed("dir=d&prefix=a*"), ("deleted 0 files", set()))
        self.assertEqual(self.removed("dir=d&suffix=*.sql"), ("deleted 0 files", set()))

    def test_refused_selections(self) -> None:
        """What could be meant otherwise removes nothing: no choice, an empty one, a name beside another."""
        needs = "delete needs name, or prefix and/or suffix, and none of them empty"
        alone = "every file is prefix=* and suffix=* together; one * alone is refused"
        for query, sentence in {
            "": needs,
            "&name=": needs,
            "&name": needs,
            "&prefix=": needs,
            "&suffix=": needs,
            "&prefix=&suffix=": needs,
            "&prefix=a&suffix=": needs,
            "&prefix=&suffix=.sql": needs,
            "&prefix=*&suffix=": needs,
            "&name=&prefix=a": needs,
            "&prefix=*": alone,
            "&suffix=*": alone,
            "&prefix=*&suffix=.sql": alone,
            "&prefix=a&suffix=*": alone,
            "&name=a.sql&prefix=a": "name stands alone: without prefix and suffix",
            "&name=a.sql&suffix=.sql": "name stands alone: without prefix and suffix",
            "&name=*&prefix=*&suffix=*": "name stands alone: without prefix and suffix",
            "&prefix=a&sufix=.sql": "delete knows no parameter sufix",
            "&prefix=a&Suffix=.sql": "delete knows no parameter Suffix",
            "&prefix=a&recursive=1": "delete knows no parameter recursive",
            "&prefix=a&prefix=b": "a parameter is given twice",
            "&name=a.sql&name=a.sql": "a parameter is given twice",
        }.items():
            self.assertRefused("dir=d" + query, 400, sentence)
        self.assertRefused("name=a.sql", 400, "the parameter dir is missing")
        self.assertRefused("prefix=*&suffix=*", 400, "the parameter dir is missing")

    def test_unknown(self) -> None:
        """A name or directory that is not there is 404."""
        gone = "there is no such file or directory"
        self.assertRefused("dir=d&name=nope", 404, gone)
        self.assertRefused("dir=nope&name=a.sql", 404, gone)
        self.assertRefused("dir=nope&prefix=a", 404, gone)
        self.assertRefused("dir=d/a.sql&prefix=a", 404, "it is not a directory")

    def test_never_a_directory(self) -> None:
        """A directory is not removed by its name, nor by a prefix, nor by stars, empty or not."""
        (self.root / "d/sub-empty").mkdir()
        self.assertRefused("dir=d&name=sub", 409, "it is a directory")
        self.assertRefused("dir=d&name=sub-empty", 409, "it is a directory")
        self.assertRefused("dir=/&name=d", 409, "it is a directory")
        self.assertEqual(self.removed("dir=d&prefix=sub"), ("deleted 0 files", set()))
        self.assertEqual(self.removed("dir=/&prefix=*&suffix=*"), ("deleted 0 files", set()))
        self.assertTrue((self.root / "d/sub-empty").is_dir())

    def test_names_that_are_none(self) -> None:
        """Nothing above the directory, and no path, is a name."""
        self.assertRefused("dir=d&name=..", 400, "'..' is not a name")
        self.assertRefused("dir=d/sub/..&name=a.sql", 400, "'..' is not a name")
        self.assertRefused("dir=/&name=d/a.sql", 400, "a name holds no slash and no NUL")
        self.assertRefused("dir=/&name=d%2Fa.sql", 400, "a name holds no slash and no NUL")

    def test_links(self) -> None:
        """A link is removed itself; what it leads to stays."""
        outside = self.root.parent / "outside"
        outside.write_bytes(b"stays")
        for name, target in {"out": os.path.abspath(outside), "in": "a.sql", "dir": "sub", "no": "x"}.items():
            (self.root / "d" / name).symlink_to(target)
        for name in ("out", "in", "dir", "no"):
            self.assertEqual(self.removed(f"dir=d&name={name}")[0], "deleted 1 file")
        self.assertEqual(self.left(), set(FILES))
        self.assertEqual(outside.read_bytes(), b"stays")

    def test_hidden(self) -> None:
        """What a caller may not see cannot be removed by name, prefix or stars."""
        hidden = self.write("d/.env")
        self.assertEqual(self.delete("dir=d&name=.env").status, 404)
        self.assertEqual(self.removed("dir=d&prefix=.")[0], "deleted 0 files")
        self.assertEqual(self.removed("dir=d&prefix=*&suffix=*")[0], "deleted 4 files")
        self.assertTrue(hidden.exists())
        ours = self.write("d/.fileexport/new")
        web = self.harness(hidden=True)
        self.assertEqual(web.get("/delete?dir=d/.fileexport&prefix=*&suffix=*").status, 404)
        self.assertEqual(web.get("/delete?dir=d&name=.env").status, 200)
        self.assertTrue(ours.exists())

    def test_odd_names(self) -> None:
        """Every name can be removed, whatever bytes it has."""
        for name in (b"a b", b"a+b", b"100%", b"#?&=;", b"new\nline", b"\xff\xfe", "\u00e9".encode()):
            file = self.write(b"odd/" + name)
            answer = self.delete("dir=odd&name=" + quote(name, safe=""))
            self.assertEqual((answer.text, file.exists()), ("deleted 1 file", False), name)

    def test_part_of_a_token(self) -> None:
        """A token removes nothing outside its part, and needs the right to delete."""
        tokens = "token-of-sub-1 under=/d/sub\ntoken-reader-1 may=read,write,admin\n"
        web = self.harness(tokens=tokens, local=False)
        sub = {"Authorization": "Bearer token-of-sub-1"}
        self.assertEqual(web.get("/delete?dir=d&name=a.sql", sub).status, 404)
        self.assertEqual(web.get("/delete?dir=d&prefix=*&suffix=*", sub).status, 404)
        reader = {"Authorization": "Bearer token-reader-1"}
        self.assertEqual(web.get("/delete?dir=d&name=a.sql", reader).status, 403)
        self.assertEqual(self.left(), set(FILES))
        self.assertEqual(web.get("/delete?dir=d/sub&name=a.sql", sub).text, "deleted 1 file")

    def test_head_and_others(self) -> None:
        """HEAD, and every method that the path does not have, removes nothing and names those it has."""
        known = ("HEAD", "PUT", "PATCH", "OPTIONS", "TRACE")
        for method in (*known, "delete", "GETX"):
            answer = self.delete("dir=d&name=a.sql", method)
            status = 405 if method in known else 501
            self.assertEqual((answer.status, answer.field("Allow")), (status, "GET, POST, DELETE"), method)
            self.assertEqual(answer.field("Content-Type"), "text/plain; charset=utf-8")
        self.assertEqual(self.left(), set(FILES))

    def test_body_means_nothing(self) -> None:
        """Parameters are those of the URL: a form's body adds none and replaces none."""
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        answer = self.web.request("POST", "/delete?dir=d", form, b"prefix=*&suffix=*&name=a.sql")
        self.assertEqual((answer.status, self.left()), (400, set(FILES)))


class StopTests(HttpCase):
    """/stop."""

    def test_stops(self) -> None:
        """GET and POST answer `stopping`, begin the stop, and end their connection."""
        for method in ("GET", "POST"):
            web = self.harness()
            answer = web.request(method, "/stop")
            self.assertEqual((answer.status, answer.text, web.stops), (200, "stopping", 1))
            self.assertEqual(answer.field("Connection"), "close")

    def test_other_methods(self) -> None:
        """HEAD and the others stop nothing."""
        web = self.harness()
        for method in ("HEAD", "DELETE", "PUT", "OPTIONS"):
            answer = web.request(method, "/stop")
            self.assertEqual((answer.status, answer.field("Allow")), (405, "GET, POST"))
        self.assertEqual(web.stops, 0)

    def test_from_elsewhere(self) -> None:
        """Another machine is told that only this one may ask, whatever it brings along."""
        web = self.harness(local=False)
        answer = web.get("/stop")
        self.assertEqual(answer.text, "ERROR - only a process of this machine may ask for this")
        self.assertEqual((answer.status, web.stops), (403, 0))

    def test_right(self) -> None:
        """A token needs the right `admin`."""
        web = self.harness(tokens="token-reader-1 may=read,write,delete\ntoken-admin-1 may=admin\n")
        self.assertEqual(web.get("/stop", {"Authorization": "Bearer token-reader-1"}).status, 403)
        self.assertEqual(web.stops, 0)
        self.assertEqual(web.get("/stop", {"Authorization": "Bearer token-admin-1"}).text, "stopping")
        self.assertEqual(web.stops, 1)


class TarTests(HttpCase):
    """/tar without what it needs for its callback."""

    def setUp(self) -> None:
        super().setUp()
        self.write("d/dump.sql")
        self.web = self.harness()

    def test_callback_parameters(self) -> None:
        """Without host, port or path the answer repeats the request's path and query, as text and reason."""
        for target in (
            "/tar",
            "/tar?dir=d&name=dump.sql",
            "/tar?dir=d&name=dump.sql&host=localhost&port=9010",
            "/tar?dir=d&name=dump.sql&host=localhost&path=/ping?id=X",
            "/tar?dir=d&name=dump.sql&port=9010&path=/ping?id=X",
            "/tar?dir=d&name=dump.sql&host=&port=9010&path=/ping?id=X",
            "/tar?dir=d%20e&name=a+b&host=localhost",
        ):
            answer = self.web.get(target)
            sentence = f"ERROR - CALLBACK PARAMETERS ARE MISSING: {target}"
            self.assertEqual((answer.status, answer.reason, answer.text), (400, sentence, sentence))

    def test_reason_stays_one_line_of_ascii(self) -> None:
        """A target that is no ASCII goes into the body alone, and a very long one is cut in the reason."""
        answer = self.web.get(b"/tar?dir=\xa9")
        self.assertEqual((answer.status, answer.reason), (400, "Bad Request"))
        self.assertTrue(answer.text.startswith("ERROR - CALLBACK PARAMETERS ARE MISSING: /tar?dir="))
        long = self.web.get("/tar?dir=" + "d" * 4000)
        self.assertEqual((len(long.reason), len(long.text) > 4000), (512, True))

    def test_head(self) -> None:
        """HEAD begins nothing."""
        answer = self.web.request("HEAD", "/tar?dir=d&name=dump.sql&host=localhost&port=1&path=/")
        self.assertEqual((answer.status, answer.field("Allow")), (405, "GET"))

    def test_right(self) -> None:
        """Who may only read is refused before the parameters are looked at."""
        web = self.harness(tokens="token-reader-1 may=read\n")
        self.assertEqual(web.get("/tar", {"Authorization": "Bearer token-reader-1"}).status, 403)

    def test_markup_in_a_page(self) -> None:
        """What the page of the error repeats cannot be markup."""
        answer = self.web.get('/tar?dir=<script>"&name=x', {"Accept": "text/html"})
        self.assertNotIn("<script>", answer.text)
        self.assertIn("/tar?dir=&lt;script&gt;", answer.text)
