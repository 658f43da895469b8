"""Jobs seen through the HTTP door: looking, waiting, cancelling, watching; who sees which."""

from __future__ import annotations

from fileexport.http_jobs import CANCEL_WAIT, MAX_EVENT_STREAMS, MAX_OWN_STREAMS, SOME_JOBS
from tests.http_client import encode
from tests.http_jobs_case import ANN, BOB, EVE, OTHER_BOB, ROOT, SAME_BOB, TOKENS, HttpJobsCase
from tests.jobs_case import Turned


class LookTests(HttpJobsCase):
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

    def test_tokens_of_one_name(self) -> None:
        """Tokens of one name share their jobs when they see the same part of the tree, and only then."""
        job = self.job(who=BOB)
        self.assertEqual(self.get(f"/-/jobs/{job['id']}", SAME_BOB).status, 200)
        self.assertEqual(self.get(f"/-/jobs/{job['id']}", OTHER_BOB).status, 404)
        self.assertEqual(self.get("/-/jobs", OTHER_BOB).json(), [])
        stream = self.begun("GET", "/-/events", OTHER_BOB)
        stream.settle()
        self.work()
        self.assertEqual(self.news(stream), [])

    def test_listing(self) -> None:
        """A listing has so many jobs and no more, made away from the reactor; what was skipped is counted."""
        (self.root / "d/link").symlink_to("nowhere")
        job = self.job("/d")
        self.work()
        [entry] = self.get(f"/-/jobs/{job['id']}").json()["result"]["skipped"]["entries"]
        self.assertEqual(entry["name"], "d/link")
        for name in self.more(SOME_JOBS):
            self.job(f"/d/{name}")
            self.work()
        self.assertEqual(len(self.get("/-/jobs").json()), SOME_JOBS)
        jobs = self.get("/-/jobs?limit=1000").json()
        self.assertEqual(jobs[-1]["result"]["skipped"], {"count": 1})
        makers = Turned()
        web = self.harness(tokens=TOKENS, makers=makers)
        connection = web.connect()
        connection.send(encode("GET", "/-/jobs", ANN, b""))
        self.assertEqual(connection.settle(), b"")
        makers.turn()
        self.assertEqual(connection.receive().json(), [])

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
        answer = connection.receive()
        self.assertEqual((answer.status, answer.json()["state"]), (200, "cancelled"))
        self.assertFalse((self.root / "d/dump.tgz").exists())

    def test_cancel_slowly(self) -> None:
        """What does not end at once is a 202, and everybody is shown that it will."""
        job = self.job()
        self.assertFalse(job["cancelling"])
        stream = self.begun("GET", f"/-/jobs/{job['id']}/events")
        stream.settle()
        connection = self.begun("DELETE", f"/-/jobs/{job['id']}")
        connection.settle()
        self.web.clock.advance(CANCEL_WAIT)
        answer = connection.receive()
        self.assertEqual((answer.status, answer.json()["state"]), (202, "running"))
        self.assertTrue(answer.json()["cancelling"])
        self.assertIn(b'"cancelling":true', stream.settle())
        self.work()
        ended = self.get(f"/-/jobs/{job['id']}").json()
        self.assertEqual((ended["state"], ended["cancelling"]), ("cancelled", False))

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

    def test_wait_after_the_stop(self) -> None:
        """Once the daemon stops, whoever begins to wait is answered at once, with what is true then."""
        job = self.job()
        self.web.jobs_door.stop()
        waiting = self.begun("GET", f"/-/jobs/{job['id']}?wait=30")
        self.assertEqual(waiting.receive().json()["state"], "running")
        cancelling = self.begun("DELETE", f"/-/jobs/{job['id']}").receive()
        self.assertEqual((cancelling.status, cancelling.json()["cancelling"]), (202, True))
        for path in ("/-/events", f"/-/jobs/{job['id']}/events"):
            self.assertTrue(self.begun("GET", path).settle().endswith(b"0\r\n\r\n"), path)

    def test_stop_while_waiting(self) -> None:
        """Who waits when the daemon stops is told what has become of the job meanwhile."""
        job = self.job()
        waiting = self.begun("GET", f"/-/jobs/{job['id']}?wait=30")
        waiting.settle()
        self.begun("DELETE", f"/-/jobs/{job['id']}").settle()
        self.web.jobs_door.stop()
        self.assertTrue(waiting.receive().json()["cancelling"])

    def test_gone_while_waiting(self) -> None:
        """Nobody waits for a client that has gone."""
        waiting = self.begun("GET", f"/-/jobs/{self.job()['id']}?wait=30")
        waiting.lose()
        self.assertEqual(self.web.clock.getDelayedCalls(), [])


class EventTests(HttpJobsCase):
    """News as they come."""

    def test_one(self) -> None:
        """The stream of one job begins with what it is and ends with its end."""
        job = self.job()
        stream = self.begun("GET", f"/-/jobs/{job['id']}/events")
        text = stream.settle().decode()
        self.assertIn("Content-Type: text/event-stream; charset=utf-8\r\n", text)
        self.assertIn("Cache-Control: no-store\r\n", text)
        self.assertIn("X-Accel-Buffering: no\r\n", text)
        self.assertIn('"state":"running"', text)
        self.work()
        self.assertEqual(self.news(stream), [("/d/dump.sql", "done")])

    def test_head(self) -> None:
        """HEAD tells that there is a stream, and ends."""
        answer = self.begun("HEAD", f"/-/jobs/{self.job()['id']}/events").receive(head=True)
        self.assertEqual((answer.status, answer.body), (200, b""))

    def test_ended(self) -> None:
        """There is nothing to be told of a job that has ended: with a 204 an EventSource comes no more."""
        job = self.job()
        self.work()
        for method in ("GET", "HEAD"):
            answer = self.begun(method, f"/-/jobs/{job['id']}/events").receive(head=method == "HEAD")
            self.assertEqual((answer.status, answer.body, answer.fields("Content-Type")), (204, b"", []))

    def test_second_watcher(self) -> None:
        """What one begins with is not told to those who watch already."""
        job = self.job()
        first, every = self.begun("GET", f"/-/jobs/{job['id']}/events"), self.begun("GET", "/-/events")
        first.settle()
        every.settle()
        second = self.begun("GET", f"/-/jobs/{job['id']}/events")
        self.assertEqual(self.news(second), [("/d/dump.sql", "running")])
        self.assertEqual((self.news(first), self.news(every)), ([], []))

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
        """So many streams at once, half of them for one reader; one that ends gives its place back."""
        streams = [self.begun("GET", "/-/events") for _ in range(MAX_OWN_STREAMS)]
        self.assertEqual(self.get("/-/events").status, 503)
        for _ in range(MAX_EVENT_STREAMS - MAX_OWN_STREAMS):
            self.begun("GET", "/-/events", BOB)
        refused = self.get("/-/events", ROOT)
        self.assertEqual((refused.status, refused.field("Retry-After")), (503, "10"))
        streams[0].lose()
        last = self.begun("GET", "/-/events", ROOT)
        self.assertTrue(last.settle().startswith(b"HTTP/1.1 200"))

    def test_renewed(self) -> None:
        """When the tokens are read again every stream ends, so that its reader is judged anew."""
        stream = self.begun("GET", "/-/events")
        stream.settle()
        self.web.jobs_door.renew()
        self.assertTrue(stream.settle().endswith(b"0\r\n\r\n"))
        self.assertTrue(self.begun("GET", "/-/events").settle().startswith(b"HTTP/1.1 200"))
