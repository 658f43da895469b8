"""Jobs through the HTTP door: asking, sharing, waiting, watching, cancelling; who sees which."""

from __future__ import annotations

import gzip
import json
from typing import Any

from fileexport.callback_calls import Answer
from fileexport.errors import CallbackRefusedError
from fileexport.http_jobs import MAX_BODY, MAX_EVENT_STREAMS
from fileexport.jobs import MAX_QUEUED
from tests.http_client import Connection, HttpCase, HttpHarness, Response, encode
from tests.jobs_case import Turned

SECRET = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
TOKENS = f"""
token-of-root name=root may=read,write,delete,admin
token-of-ann name=ann may=read,write secret={SECRET}
token-of-bob name=bob may=read,write under=/d
token-of-eve name=eve may=read
"""
ROOT, ANN, BOB, EVE = ({"Authorization": f"Bearer token-of-{name}"} for name in ("root", "ann", "bob", "eve"))
JSON = {"Content-Type": "application/json", "Accept": "application/json"}
PLAIN = "/tar?dir=d&name=dump.sql"
PING = "&host=localhost&port=9010&path=/ping?id=A1B2C3"


class JobsCase(HttpCase):
    """Has a file, and a door whose jobs run when the test says so."""

    def setUp(self) -> None:
        super().setUp()
        self.write("d/dump.sql", b"INSERT INTO t VALUES (1);\n" * 1000)
        self.write("e/other.sql", b"SELECT 1;\n")
        self.pool = Turned()
        self.web = self.harness(tokens=TOKENS, job_worker=self.pool)
        self.addCleanup(self.work)

    def work(self) -> None:
        """Carry out all jobs."""
        while self.pool.waiting:
            self.pool.turn()

    def ask(
        self, order: object, who: dict[str, str] = ANN, web: HttpHarness | None = None, **fields: str
    ) -> Response:
        """POST an order, or any text that is none."""
        text = order if isinstance(order, bytes) else json.dumps(order).encode()
        headers = {**JSON, **who, **{name.replace("_", "-"): value for name, value in fields.items()}}
        return (web or self.web).request("POST", "/-/jobs", headers, text)

    def job(self, path: str = "/d/dump.sql", who: dict[str, str] = ANN, **more: Any) -> dict[str, Any]:
        """A job that was acknowledged."""
        answer = self.ask({"path": path, **more}, who)
        self.assertEqual(answer.status, 202, answer.text)
        value: dict[str, Any] = answer.json()
        self.assertEqual(answer.field("Location"), f"/-/jobs/{value['id']}")
        return value

    def get(self, target: str, who: dict[str, str] = ANN) -> Response:
        """What GET answers to somebody."""
        return self.web.get(target, {**who, "Accept": "application/json"})

    def state(self, job: dict[str, Any]) -> str:
        """The state that a job has now."""
        return str(self.get(f"/-/jobs/{job['id']}").json()["state"])


class TarTests(JobsCase):
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


class OrderTests(JobsCase):
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

    def test_rights(self) -> None:
        """It takes the right to write, and is about what the caller sees."""
        self.assertEqual(self.ask({"path": "/d/dump.sql"}, EVE).status, 403)
        self.assertEqual(self.ask({"path": "/e/other.sql"}, BOB).status, 404)
        self.assertEqual(self.ask({"path": "/d/dump.sql"}, BOB).status, 202)
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
        call.answer.callback(Answer(500, "No", ""))
        shown = self.get(f"/-/jobs/{job['id']}").json()
        [attempt] = shown["callbacks"][0]["attempts"]
        self.assertEqual(attempt["status"], 500)
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


class LookTests(JobsCase):
    """Looking at jobs, waiting for them, cancelling them."""

    def test_who_sees_which(self) -> None:
        """Everybody sees their own jobs and an admin all; other people's do not exist."""
        mine, other = self.job(), self.job("/e/other.sql", ROOT)
        ids = {
            name: [job["id"] for job in self.get("/-/jobs", who).json()]
            for name, who in (("ann", ANN), ("bob", BOB), ("root", ROOT))
        }
        self.assertEqual(ids, {"ann": [mine["id"]], "bob": [], "root": [other["id"], mine["id"]]})
        for target in (f"/-/jobs/{other['id']}", "/-/jobs/none", f"/-/jobs/{other['id']}/events"):
            self.assertEqual(self.get(target).status, 404, target)
        for method, rest in (("DELETE", ""), ("POST", "/redeliver")):
            self.assertEqual(self.web.request(method, f"/-/jobs/{other['id']}{rest}", ANN).status, 404)
        self.assertEqual(self.get(f"/-/jobs/{mine['id']}", ROOT).status, 200)
        self.assertEqual(self.get("/-/jobs", EVE).status, 403)
        self.assertEqual(len(self.get("/-/jobs?limit=1", ROOT).json()), 1)

    def test_numbers(self) -> None:
        """Parameters that are no numbers in their range are refused."""
        job = self.job()
        for target in ("/-/jobs?limit=0", "/-/jobs?limit=1001", "/-/jobs?limit=x", "/-/jobs?limit=-1"):
            self.assertEqual(self.get(target).status, 400, target)
        for wait in ("61", "-1", "x", "1.5", ""):
            self.assertEqual(self.get(f"/-/jobs/{job['id']}?wait={wait}").status, 400, wait)

    def test_cancel(self) -> None:
        """A queued job is cancelled at once; one that has ended stays as it was."""
        jobs = [self.job(f"/d/{name}") for name in self.more(3)]
        answer = self.web.request("DELETE", f"/-/jobs/{jobs[2]['id']}", ANN)
        self.assertEqual((answer.status, answer.json()["state"]), (200, "cancelled"))
        self.work()
        self.assertEqual([self.state(job) for job in jobs], ["done", "done", "cancelled"])
        answer = self.web.request("DELETE", f"/-/jobs/{jobs[0]['id']}", ANN)
        self.assertEqual((answer.status, answer.json()["state"]), (200, "done"))

    def test_cancel_running(self) -> None:
        """A running job ends at its work's next look, and leaves nothing."""
        job = self.job()
        connection = self.begun("DELETE", f"/-/jobs/{job['id']}")
        self.assertEqual(connection.settle(), b"")
        self.work()
        self.assertEqual(connection.receive().json()["state"], "cancelled")
        self.assertFalse((self.root / "d/dump.tgz").exists())

    def test_wait(self) -> None:
        """Waiting ends with the job, with its time, or with the daemon."""
        job = self.job()
        target = f"/-/jobs/{job['id']}?wait=30"
        waiting = self.begun("GET", target)
        self.assertEqual(waiting.settle(), b"")
        self.web.clock.advance(30)
        self.assertEqual(waiting.receive().json()["state"], "running")
        waiting = self.begun("GET", target)
        self.work()
        self.assertEqual(waiting.receive().json()["state"], "done")
        self.assertEqual(self.get(target).json()["state"], "done")
        other = self.begun("GET", f"/-/jobs/{self.job('/e/other.sql')['id']}?wait=30")
        self.web.jobs_door.stop()
        self.assertEqual(other.receive().json()["state"], "running")

    def test_gone_while_waiting(self) -> None:
        """Nobody waits for a client that has gone."""
        waiting = self.begun("GET", f"/-/jobs/{self.job()['id']}?wait=30")
        waiting.lose()
        self.assertEqual(self.web.clock.getDelayedCalls(), [])

    def more(self, count: int) -> list[str]:
        """More files; their names."""
        names = [f"more{number}.sql" for number in range(count)]
        for name in names:
            self.write(f"d/{name}", b"x")
        return names

    def begun(self, method: str, target: str, who: dict[str, str] = ANN) -> Connection:
        """A connection on which a request was made whose answer may take a while."""
        connection = self.web.connect()
        connection.send(encode(method, target, {**who, "Accept": "application/json"}, b""))
        return connection


class EventTests(LookTests):
    """News as they come."""

    def news(self, connection: Connection) -> list[tuple[str, str]]:
        """Path and state in all events that came, in order."""
        found = []
        for line in connection.settle().decode().splitlines():
            if line.startswith("data: "):
                job = json.loads(line.removeprefix("data: "))
                found.append((job["path"], job["state"]))
        return found

    def test_one(self) -> None:
        """The stream of one job begins with what it is and ends with its end."""
        job = self.job()
        stream = self.begun("GET", f"/-/jobs/{job['id']}/events")
        text = stream.settle().decode()
        self.assertIn("Content-Type: text/event-stream; charset=utf-8\r\n", text)
        self.assertIn("Cache-Control: no-store\r\n", text)
        self.assertIn('"state":"running"', text)
        self.work()
        self.assertEqual(self.news(stream), [("/d/dump.sql", "done")])
        ended = self.begun("GET", f"/-/jobs/{job['id']}/events")
        self.assertEqual(self.news(ended), [("/d/dump.sql", "done")])
        head = self.begun("HEAD", f"/-/jobs/{job['id']}/events")
        self.assertEqual(head.receive(head=True).body, b"")

    def test_all(self) -> None:
        """The stream of all jobs is that of the caller's own; an admin's is everybody's."""
        own, every = self.begun("GET", "/-/events", BOB), self.begun("GET", "/-/events", ROOT)
        self.assertEqual((self.news(own), self.news(every)), ([], []))
        self.job()
        self.work()
        self.assertEqual(self.news(own), [])
        self.assertEqual(self.news(every)[-1], ("/d/dump.sql", "done"))
        self.web.jobs_door.stop()
        self.assertTrue(own.settle().endswith(b"0\r\n\r\n"))

    def test_bound(self) -> None:
        """There are so many streams at once and no more; one that ends gives its place back."""
        streams = [self.begun("GET", "/-/events") for _ in range(MAX_EVENT_STREAMS)]
        self.assertEqual(self.get("/-/events").status, 503)
        streams[0].lose()
        last = self.begun("GET", "/-/events")
        self.assertTrue(last.settle().startswith(b"HTTP/1.1 200"))
