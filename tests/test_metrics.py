"""What the daemon counts of itself, read back by Prometheus' own parser."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from http import HTTPStatus

from prometheus_client.parser import text_string_to_metric_families
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from fileexport.callback_calls import CALL_TIME, Answer, CallFailed
from fileexport.callback_targets import Asker, Target
from fileexport.metrics import BEAT, DELAY_BUCKETS, REQUEST_BUCKETS, CountedCalls, Metrics
from tests.http_client import Response, encode
from tests.jobs_case import JobsCase
from tests.machine import TOKEN, ServiceCase
from tests.outbox_case import Receivers

Labels = tuple[tuple[str, str], ...]


def samples(text: bytes) -> dict[tuple[str, Labels], float]:
    """Every sample of a page by its name and labels."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text.decode("utf-8"))
        for sample in family.samples
    }


def labelled(page: Mapping[tuple[str, Labels], float], name: str) -> dict[tuple[str, ...], float]:
    """The samples of one name by the values of their labels."""
    return {tuple(value for _, value in labels): number for (n, labels), number in page.items() if n == name}


class MetricsTests(SynchronousTestCase):
    """The numbers, and the page that shows them."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.jobs: Mapping[str, int] = {}
        self.connections, self.accepted = 0, 0
        self.metrics = Metrics(
            self.clock,
            connections=lambda: self.connections,
            accepted=lambda: self.accepted,
            jobs=lambda: self.jobs,
            version="1.2.3",
        )

    def page(self) -> dict[tuple[str, Labels], float]:
        """Every sample of the page by its name and labels."""
        return samples(self.metrics.render()[1])

    def labelled(self, name: str) -> dict[tuple[str, ...], float]:
        """The samples of one name by the values of their labels."""
        return labelled(self.page(), name)

    def test_content_type(self) -> None:
        """The page is Prometheus' text format, and says so."""
        kind, text = self.metrics.render()
        self.assertEqual(kind, b"text/plain; version=0.0.4; charset=utf-8")
        self.assertTrue(text.endswith(b"\n"))

    def test_fresh(self) -> None:
        """Before anything happened every number that has no label is there, and is zero."""
        page = self.page()
        for name in ("response_bytes_total", "request_seconds_count", "connections", "connections_total"):
            self.assertEqual(page[f"fileexport_{name}", ()], 0.0)
        self.assertEqual(page["fileexport_reactor_delay_seconds_count", ()], 0.0)

    def test_requests(self) -> None:
        """Requests are counted by method and status, and their bytes and seconds are added up."""
        self.metrics.request(b"GET", HTTPStatus.OK, 100, 0.002)
        self.metrics.request(b"GET", 200, 20, 0.004)
        self.metrics.request(b"DELETE", 404, 3, 90.0)
        self.assertEqual(
            self.labelled("fileexport_requests_total"), {("GET", "200"): 2.0, ("DELETE", "404"): 1.0}
        )
        page = self.page()
        self.assertEqual(page["fileexport_response_bytes_total", ()], 123.0)
        self.assertEqual(page["fileexport_request_seconds_count", ()], 3.0)
        self.assertAlmostEqual(page["fileexport_request_seconds_sum", ()], 90.006)

    def test_strange_methods(self) -> None:
        """Methods that clients make up share one label, so that they cannot make series without end."""
        for method in (b"BREW", b"-", b'X"\n', b"get"):
            self.metrics.request(method, 501, 0, 0.0)
        self.assertEqual(self.labelled("fileexport_requests_total"), {("other", "501"): 4.0})

    def test_buckets(self) -> None:
        """A bucket counts all values up to its bound, the bound itself included, and +Inf counts them all."""
        for seconds in (0.0, REQUEST_BUCKETS[0], REQUEST_BUCKETS[0] * 1.01, REQUEST_BUCKETS[-1] + 1):
            self.metrics.request(b"GET", 200, 0, seconds)
        buckets = self.labelled("fileexport_request_seconds_bucket")
        self.assertEqual([float(bound) for (bound,) in buckets], [*REQUEST_BUCKETS, float("inf")])
        self.assertEqual(list(buckets.values()), [2.0] + [3.0] * (len(REQUEST_BUCKETS) - 1) + [4.0])

    def test_asked(self) -> None:
        """Connections and jobs are what their owners say when the page is made."""
        self.connections, self.accepted, self.jobs = 3, 17, {"queued": 2, "running": 1}
        page = self.page()
        self.assertEqual(page["fileexport_connections", ()], 3.0)
        self.assertEqual(page["fileexport_connections_total", ()], 17.0)
        self.assertEqual(self.labelled("fileexport_jobs"), {("queued",): 2.0, ("running",): 1.0})
        self.jobs = {}
        self.assertEqual(self.labelled("fileexport_jobs"), {})

    def test_callbacks(self) -> None:
        """Outcomes of callbacks are counted by their names."""
        self.metrics.callback("delivered")
        self.assertEqual(self.labelled("fileexport_callbacks_total"), {("delivered",): 1.0})

    def test_delay(self) -> None:
        """The reactor's delay is how much later than planned each timer fired."""
        self.metrics.start()
        self.clock.advance(BEAT)
        self.clock.advance(BEAT + 0.75)
        page = self.page()
        self.assertEqual(page["fileexport_reactor_delay_seconds_count", ()], 2.0)
        self.assertAlmostEqual(page["fileexport_reactor_delay_seconds_sum", ()], 0.75)
        buckets = self.labelled("fileexport_reactor_delay_seconds_bucket")
        self.assertEqual(len(buckets), len(DELAY_BUCKETS) + 1)
        self.assertEqual((buckets["0.5",], buckets["1.0",]), (1.0, 2.0))

    def test_stop(self) -> None:
        """Stopping leaves no timer and keeps the numbers; it may come twice, and before the start."""
        self.metrics.stop()
        self.metrics.start()
        self.clock.advance(BEAT)
        self.metrics.stop()
        self.metrics.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.page()["fileexport_reactor_delay_seconds_count", ()], 1.0)

    def test_process_and_build(self) -> None:
        """The page tells the program's version, and the memory and descriptors of this process."""
        page = self.page()
        self.assertEqual(page["fileexport_build_info", (("version", "1.2.3"),)], 1.0)
        self.assertGreater(page["process_resident_memory_bytes", ()], 0)
        self.assertGreater(page["process_open_fds", ()], 0)

    def test_nothing_global(self) -> None:
        """Two daemons in one process count apart, and two pages in a row are the same."""
        other = Metrics(
            self.clock, connections=lambda: 0, accepted=lambda: 0, jobs=lambda: self.jobs, version="1.2.3"
        )
        other.request(b"GET", 200, 5, 0.1)
        self.assertEqual(self.labelled("fileexport_requests_total"), {})
        first, second = (
            [line for line in other.render()[1].splitlines() if line.startswith(b"fileexport")]
            for _ in range(2)
        )
        self.assertEqual(first, second)

    def test_lazy(self) -> None:
        """Counting does not import prometheus-client: a start does not wait for it."""
        code = "import sys, fileexport.metrics; sys.exit('prometheus_client' in sys.modules)"
        self.assertEqual(subprocess.run([sys.executable, "-c", code], check=False).returncode, 0)


class EndTests(JobsCase):
    """Ends of jobs."""

    def test_ends(self) -> None:
        """The end of each job is counted once, by its state; news that are no end are not."""
        metrics = Metrics(
            self.clock, connections=lambda: 0, accepted=lambda: 0, jobs=lambda: {}, version="1.2.3"
        )
        self.jobs.subscribe(metrics.job_news)
        done, cancelled = self.submit("/a"), self.submit("/b")
        self.get(self.jobs.cancel(cancelled.id))
        self.clock.advance(1)
        for _ in range(2):
            self.pool.turn()
        self.assertEqual(self.states(done, cancelled), ["done", "cancelled"])
        found = labelled(samples(metrics.render()[1]), "fileexport_jobs_ended_total")
        self.assertEqual(found, {("done",): 1.0, ("cancelled",): 1.0})


class CallTests(SynchronousTestCase):
    """Attempts to deliver callbacks."""

    def test_outcomes(self) -> None:
        """An attempt is delivered, rejected or failed, and the outbox sees what it saw without the count."""
        receivers, counted = Receivers(), list[str]()
        calls = CountedCalls(receivers, counted.append)
        target, asker = Target.from_url("http://192.0.2.9/ping?id=1"), Asker()
        fates = (Answer(204, "", ""), Answer(302, "", ""), Answer(410, "", ""), CallFailed("no answer"))
        for fate in fates:
            receivers.script = [fate]
            calling = Deferred.fromCoroutine(calls.call(target, asker, {}))
            if isinstance(fate, CallFailed):
                self.assertIs(self.failureResultOf(calling, CallFailed).value, fate)
            else:
                self.assertIs(self.successResultOf(calling), fate)
        self.assertEqual(counted, ["delivered", "rejected", "rejected", "failed"])

    def test_cut_off(self) -> None:
        """What a stop cuts off is made again: it is no attempt."""
        counted: list[str] = []
        calls = CountedCalls(Receivers(), counted.append)
        calling = Deferred.fromCoroutine(calls.call(Target.from_url("http://192.0.2.9/"), Asker(), {}))
        calling.cancel()
        self.failureResultOf(calling, CancelledError)
        self.assertEqual(counted, [])


class DaemonTests(ServiceCase):
    """The page of a whole daemon."""

    def ask(self, target: str) -> Response:
        """What GET answers, when the threads have done their part."""
        connection = self.connect()
        connection.send(encode("GET", target, {"Authorization": f"Bearer {TOKEN}"}, b""))
        connection.turn()
        while not connection.wire.value():
            self.machine.turn()
            connection.turn()
        return connection.receive()

    def test_job(self) -> None:
        """A job and its callback are counted when they have come to their end."""
        self.started(token_file=self.tokens(), callback_allow=["192.0.2.9"])
        job = self.ask("/tar?dir=/&name=hello.txt&host=192.0.2.9&port=9010&path=/ping").field("Location")
        while not self.machine.tcpClients:
            self.machine.turn()
        self.assertEqual(self.ask(job).json()["state"], "done")
        self.machine.advance(CALL_TIME)
        [attempt] = self.ask(job).json()["callbacks"][0]["attempts"]
        self.assertEqual(attempt["error"], "no answer in time")
        page = samples(self.ask("/-/metrics").body)
        self.assertEqual(labelled(page, "fileexport_jobs_ended_total"), {("done",): 1.0})
        self.assertEqual(labelled(page, "fileexport_callbacks_total"), {("failed",): 1.0})
