"""What the daemon counts of itself, read back by Prometheus' own parser."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from http import HTTPStatus

from prometheus_client.parser import text_string_to_metric_families
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from fileexport.metrics import BEAT, DELAY_BUCKETS, REQUEST_BUCKETS, Metrics

Labels = tuple[tuple[str, str], ...]


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
        _, text = self.metrics.render()
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(text.decode("utf-8"))
            for sample in family.samples
        }

    def labelled(self, name: str) -> dict[tuple[str, ...], float]:
        """The samples of one name by the values of their labels."""
        found = self.page().items()
        return {tuple(value for _, value in labels): number for (n, labels), number in found if n == name}

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

    def test_ends(self) -> None:
        """Ends of jobs and outcomes of callbacks are counted by their names."""
        for state in ("done", "failed", "done"):
            self.metrics.job_ended(state)
        self.metrics.callback("delivered")
        self.assertEqual(self.labelled("fileexport_jobs_ended_total"), {("done",): 2.0, ("failed",): 1.0})
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
