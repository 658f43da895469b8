"""Asking for jobs through the HTTP door: what is an order, who may, what is shared, who is called back."""

from __future__ import annotations

import gzip
import json

from fileexport.callback_calls import Answer
from fileexport.errors import CallbackRefusedError
from fileexport.http_jobs import MAX_BODY
from fileexport.jobs import MAX_QUEUED
from tests.http_jobs_case import ANN, BOB, EVE, PING, PLAIN, ROOT, SAME_BOB, SECRET, TOKENS, HttpJobsCase
from tests.jobs_case import Turned


class TarTests(HttpJobsCase):
    """`/tar`, as scripts know it."""

    def test_line(self) -> None:
        """The answer comes before the work; the archive and the GET come with it."""
        answer = self.web.get(PLAIN + PING)
        self.assertEqual((answer.status, answer.text), (200, "working ..."))
        self.assertFalse((self.root / "d/dump.tgz").exists())
        self.work()
        self.assertTrue((self.root / "d/dump.tgz").exists())
        [call] = self.web.rooms.receivers.calls
        self.assertEqual((call.target.url, call.body), ("http://localhost:9010/ping?id=A1B2C3", None))
        self.assertTrue(call.asker.loopback_allowed)
        job = self.web.get(answer.field("Location")).json()
        self.assertEqual((job["state"], job["target"]), ("done", "/d/dump.tgz"))
        call.answer.callback(Answer(200, "OK", "thanks"))

    def test_formats(self) -> None:
        """Each format has its suffix, and a directory keeps its whole name."""
        for more, target in (
            ("d&name=dump.sql&format=zip", "d/dump.zip"),
            ("d&name=dump.sql&format=tar.zst", "d/dump.tar.zst"),
            ("/&name=d", "d.tgz"),
        ):
            self.assertEqual(self.web.get(f"/tar?dir={more}{PING}").text, "working ...")
            self.work()
            self.assertTrue((self.root / target).exists(), target)

    def test_mistakes(self) -> None:
        """Each mistake has its status and one line; no job is made."""
        missing = "ERROR - CALLBACK PARAMETERS ARE MISSING: /tar?dir=d&name=dump.sql"
        for target, status, text in (
            (PLAIN, 400, missing),
            (PLAIN + PING.replace("&port=9010", ""), 400, missing),
            (PLAIN + PING + "&format=rar", 400, "ERROR - format is one of tar.gz, tar.zst, zip"),
            (PLAIN + PING.replace("9010", "0"), 400, "port"),
            (PLAIN + PING.replace("9010", "x"), 400, "port"),
            (PLAIN + PING.replace("/ping", "ping"), 400, "path"),
            ("/tar?dir=d&name=none" + PING, 404, "ERROR - there is no such file or directory"),
            ("/tar?dir=none&name=dump.sql" + PING, 404, "ERROR - there is no such file or directory"),
            ("/tar?name=dump.sql" + PING, 400, "ERROR - the parameter dir is missing"),
            ("/tar?dir=d" + PING, 400, "ERROR - the parameter name is missing"),
        ):
            answer = self.web.get(target)
            self.assertEqual(answer.status, status, target)
            self.assertIn(text, answer.text)
            self.assertEqual(len(answer.text.splitlines()), 1)
        self.assertEqual(self.get("/-/jobs", ROOT).json(), [])

    def test_parameters_are_missing(self) -> None:
        """The line repeats the request as it was sent, in whatever letters; what is no text is replaced."""
        for sent, said in (("dümp", "dümp"), ("d%C3%BCmp", "d%C3%BCmp"), (b"d\xff", "d\ufffd")):
            name = sent if isinstance(sent, bytes) else sent.encode()
            answer = self.web.get(b"/tar?dir=d&name=" + name)
            line = f"ERROR - CALLBACK PARAMETERS ARE MISSING: /tar?dir=d&name={said}"
            self.assertEqual((answer.status, answer.text), (400, line))

    def test_own_source(self) -> None:
        """An archive is not made into itself."""
        self.write("d/dump.tgz", b"")
        self.assertEqual(self.web.get("/tar?dir=d&name=dump.tgz" + PING).status, 409)

    def test_refused_callback(self) -> None:
        """A callback that is not allowed makes no job."""

        async def check(*_: object) -> None:
            raise CallbackRefusedError

        self.patch(self.web.rooms.receivers, "check", check)
        answer = self.web.get(PLAIN + PING)
        self.assertEqual((answer.status, answer.text), (403, "ERROR - this callback target is not allowed"))
        self.assertEqual(self.get("/-/jobs", ROOT).json(), [])

    def test_who_may_name_this_machine(self) -> None:
        """Only a process of the daemon's own user that asks directly: not a proxy, not another user."""
        for settings, headers, allowed in (
            ({}, {}, True),
            ({"owner": 4242}, ANN, False),
            ({}, {**ANN, "X-Forwarded-For": "127.0.0.1"}, False),
            ({"local": False}, ANN, False),
        ):
            web = self.harness(tokens=TOKENS, job_worker=Turned(at_once=True), **settings)
            self.assertEqual(web.get(PLAIN + PING, headers).status, 200)
            [call] = web.rooms.receivers.calls
            self.assertEqual(call.asker.loopback_allowed, allowed, (settings, headers))


class OrderTests(HttpJobsCase):
    """`POST /-/jobs`."""

    def test_life(self) -> None:
        """A job is queued, runs, is done, and says what it made."""
        job = self.job(format="gz")
        self.assertIn(job["state"], ("queued", "running"))
        self.work()
        done = self.get(f"/-/jobs/{job['id']}").json()
        self.assertEqual(
            (done["state"], done["path"], done["target"]), ("done", "/d/dump.sql", "/d/dump.sql.gz")
        )
        self.assertEqual((done["result"]["files"], done["error"], done["callbacks"]), (1, None, []))
        archive = (self.root / "d/dump.sql.gz").read_bytes()
        self.assertEqual(gzip.decompress(archive), (self.root / "d/dump.sql").read_bytes())
        self.assertEqual(done["result"]["size"], len(archive))

    def test_what_is_no_order(self) -> None:
        """What cannot be understood is a 400, whatever it is, and other types are a 415."""
        for text in (
            b"",
            b"{",
            b"[]",
            b"null",
            b"\xff",
            b'{"path": 1}',
            b"{}",
            b'{"path": "/d/dump.sql", "paht": 1}',
            b'{"path": "/d/dump.sql", "format": "rar"}',
            b'{"path": "/d/dump.sql", "sums": "yes"}',
            b'{"path": "/../x"}',
            b'{"path": "/"}',
            b'{"path": "/d/dump.sql", "callback": "ftp://x/"}',
            b'{"path": "/d/dump.sql", "callback": "http://u:p@localhost/"}',
            b"[" * 40_000,
        ):
            answer = self.ask(text)
            self.assertEqual(answer.status, 400, text[:60])
            self.assertEqual(answer.json()["status"], 400)
        for kind in ("text/plain", "application/x-www-form-urlencoded", "application/jsonx"):
            self.assertEqual(self.ask({"path": "/d/dump.sql"}, Content_Type=kind).status, 415, kind)
        self.assertEqual(self.ask({"path": "/d/dump.sql"}, Content_Type="Application/JSON; a=b").status, 202)
        self.assertEqual(self.ask(b" " * (MAX_BODY + 1)).status, 413)

    def test_one_line(self) -> None:
        """Who names no type reads a mistake in one line of text."""
        answer = self.web.request("POST", "/-/jobs", {"Content-Type": "application/json"}, b"{")
        self.assertEqual((answer.status, len(answer.text.splitlines())), (400, 1))
        self.assertTrue(answer.text.startswith("ERROR - this JSON asks for no job: "), answer.text)

    def test_unknown_format(self) -> None:
        """A format that is none is answered with those that there are."""
        detail = self.ask({"path": "/d/dump.sql", "format": "rar"}).json()["detail"]
        self.assertEqual(detail, "a format is one of tar.gz, tar.zst, zip, gz, zst")

    def test_rights(self) -> None:
        """It takes the right to write, and no other, and is about what the caller sees."""
        self.assertEqual(self.ask({"path": "/d/dump.sql"}, EVE).status, 403)
        self.assertEqual(self.ask({"path": "/e/other.sql"}, BOB).status, 404)
        for who in (BOB, SAME_BOB):
            self.assertEqual(self.ask({"path": "/d/dump.sql"}, who).status, 202)
        stranger = self.harness(owner=4242, tokens=TOKENS)
        self.assertEqual(self.ask({"path": "/d/dump.sql"}, {}, stranger).status, 401)

    def test_shared(self) -> None:
        """Two who ask for the same share a job; another job for the same archive is a conflict."""
        first = self.job()
        self.assertEqual(self.job()["id"], first["id"])
        self.assertEqual(self.ask({"path": "/d/dump.sql", "sums": True}).status, 409)
        self.work()
        self.assertNotEqual(self.job()["id"], first["id"])

    def test_idempotency(self) -> None:
        """The same key finds the same job, also after its end; with another wish it is a conflict."""
        dump = {"path": "/d/dump.sql"}
        first = self.ask(dump, Idempotency_Key="k1").json()
        self.work()
        self.assertEqual(self.ask(dump, Idempotency_Key="k1").json()["id"], first["id"])
        self.assertEqual(self.ask({**dump, "format": "zip"}, Idempotency_Key="k1").status, 409)
        self.assertEqual(self.ask({"path": "/d/dump.sql"}, Idempotency_Key="k" * 256).status, 400)

    def test_repeated(self) -> None:
        """A request that is repeated finds its job where it could not be made any more."""
        hook = {"path": "/d/dump.sql", "callback": "http://127.0.0.1:9010/hook"}
        first = self.ask(hook, Idempotency_Key="k1").json()
        self.work()
        (self.root / "d/dump.sql").unlink()

        async def check(*_: object) -> None:
            raise CallbackRefusedError

        self.patch(self.web.rooms.receivers, "check", check)
        again = self.ask({**hook, "format": "tar.gz", "path": "d//dump.sql"}, Idempotency_Key="k1")
        self.assertEqual((again.status, again.json()["id"]), (202, first["id"]))
        self.assertEqual(again.field("Location"), f"/-/jobs/{first['id']}")
        for more in ({"callback": None}, {"callback": "http://127.0.0.1:9010/other"}, {"sums": True}):
            self.assertEqual(self.ask({**hook, **more}, Idempotency_Key="k1").status, 409, more)
        self.assertEqual(self.ask(hook, ROOT, Idempotency_Key="k1").status, 404)
        self.assertEqual(self.ask(hook).status, 404)

    def test_link(self) -> None:
        """The archive's address is that of the daemon's pages: below the prefix, past its own names."""
        web = self.harness(tokens=TOKENS, job_worker=Turned(at_once=True), prefix="/export")
        self.write("-/dump ü.sql", b"x")
        for path, url in (
            ("/-/dump ü.sql", "/export/-/files/-/dump%20%C3%BC.tgz"),
            ("/d/dump.sql", "/export/d/dump.tgz"),
        ):
            job = self.ask({"path": path, "callback": "http://127.0.0.1:9010/hook"}, web=web).json()
            target = f"/-/jobs/{job['id']}"
            self.assertEqual(web.get(target, ANN).json()["result"]["url"], url)
            event = json.loads(web.rooms.receivers.calls[-1].body or b"")
            self.assertEqual(event["data"]["result"]["url"], url)
            self.assertTrue(web.get(url.removeprefix("/export"), ANN).body.startswith(b"\x1f\x8b"))

    def test_full(self) -> None:
        """Beyond the queue's length there is a 429 that says when to come again."""
        for number in range(MAX_QUEUED + 3):
            self.write(f"q/{number}.sql", b"x")
        statuses = [self.ask({"path": f"/q/{number}.sql"}).status for number in range(MAX_QUEUED + 3)]
        self.assertEqual(statuses, [202] * (MAX_QUEUED + 2) + [429])
        answer = self.ask({"path": f"/q/{MAX_QUEUED + 2}.sql"})
        self.assertEqual(answer.field("Retry-After"), "10")

    def test_webhook(self) -> None:
        """A webhook needs a secret to be signed with, and tells of the end."""
        hook = {"path": "/d/dump.sql", "callback": "http://127.0.0.1:9010/hook"}
        answer = self.ask(hook, BOB)
        self.assertEqual(answer.status, 400)
        self.assertIn("secret=", answer.json()["detail"])
        job = self.ask(hook).json()
        [message] = job["callbacks"]
        self.assertEqual((message["url"], message["state"]), ("http://127.0.0.1:9010/hook", "waiting"))
        self.work()
        [call] = self.web.rooms.receivers.calls
        event = json.loads(call.body or b"")
        self.assertEqual((event["type"], event["data"]["id"]), ("job.done", job["id"]))
        self.assertEqual(call.fields["webhook-id"], message["id"])
        call.answer.callback(Answer(500, "No", "come back later"))
        shown = self.get(f"/-/jobs/{job['id']}").json()
        [attempt] = shown["callbacks"][0]["attempts"]
        self.assertEqual((attempt["status"], attempt["first_line"]), (500, "come back later"))
        self.assertNotIn(SECRET, json.dumps(shown))
        again = self.web.request("POST", f"/-/jobs/{job['id']}/redeliver", ANN)
        self.assertEqual(again.status, 202)
        self.assertEqual(len(self.web.rooms.receivers.calls), 2)
        self.web.rooms.receivers.calls[1].answer.callback(Answer(204, "No Content", ""))
        shown = self.get(f"/-/jobs/{job['id']}").json()
        self.assertEqual(shown["callbacks"][0]["state"], "delivered")

    def test_nothing_to_redeliver(self) -> None:
        """Without a callback there is nothing to send again."""
        job = self.job()
        self.assertEqual(self.web.request("POST", f"/-/jobs/{job['id']}/redeliver", ANN).status, 409)
