"""What the daemon counts of itself, and the page that Prometheus reads.

Counting costs a few hundred nanoseconds: plain numbers, written on the reactor's thread alone.
prometheus-client is imported when the page is first asked for, and holds nothing between two scrapes.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from itertools import accumulate
from typing import TYPE_CHECKING

from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from fileexport.callback_calls import Answer
from fileexport.callback_targets import Asker, Target
from fileexport.callbacks import Calls
from fileexport.jobs import Event
from fileexport.web.request import METHODS

if TYPE_CHECKING:
    from prometheus_client import Metric

#: Upper bounds of the histograms' buckets in seconds: an answer from the cache up to a download of hours.
REQUEST_BUCKETS = (
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    10.0,
    60.0,
    600.0,
    3600.0,
)
DELAY_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
#: Seconds between two looks at how late the reactor is.
BEAT = 0.5

#: Methods as labels: what a client makes up must not make new series.
_METHODS = {method: method.decode("ascii") for method in METHODS}


class Histogram:
    """How often values fell into which bucket, and their sum."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Count one value. A value on a bound belongs below it."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def family(self, name: str, about: str) -> Metric:
        """As Prometheus takes it: each bucket's upper bound with the number of all values up to it."""
        from prometheus_client.core import HistogramMetricFamily

        bounds = (*map(str, self._bounds), "+Inf")
        buckets = list(zip(bounds, accumulate(map(float, self._counts)), strict=True))
        return HistogramMetricFamily(name, about, buckets, self._sum)


class Metrics:
    """Numbers about the daemon.

    `connections` tells how many stand now, `accepted` how many have come in since the start, `jobs` how many
    there are in each state. All three are asked when the page is made.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        *,
        connections: Callable[[], int],
        accepted: Callable[[], int],
        jobs: Callable[[], Mapping[str, int]],
        version: str,
    ) -> None:
        self._reactor = reactor
        self._connections = connections
        self._accepted = accepted
        self._jobs = jobs
        self._version = version
        self._requests: Counter[tuple[str, int]] = Counter()
        self._sent = 0
        self._seconds = Histogram(REQUEST_BUCKETS)
        self._jobs_ended: Counter[str] = Counter()
        self._callbacks: Counter[str] = Counter()
        self._delay = Histogram(DELAY_BUCKETS)
        self._beat: IDelayedCall | None = None

    # -- counting, on the reactor's thread

    def request(self, method: bytes, status: int, sent: int, seconds: float) -> None:
        """A request was answered with `sent` bytes of body, `seconds` after its head was complete."""
        self._requests[_METHODS.get(method, "other"), status] += 1
        self._sent += sent
        self._seconds.observe(seconds)

    def job_news(self, news: Event) -> None:
        """Something happened to a job: its end counts, done, failed or cancelled."""
        if news.kind == "state" and news.job.state.ended:
            self._jobs_ended[news.job.state.value] += 1

    def callback(self, outcome: str) -> None:
        """An attempt to deliver a callback came to this outcome; see `CountedCalls`."""
        self._callbacks[outcome] += 1

    # -- how late the reactor is

    def start(self) -> None:
        """Begin to measure the reactor; not twice without a `stop` between."""
        self._expect()

    def stop(self) -> None:
        """Measure no more; harmless where nothing was begun. What was counted stays."""
        beat, self._beat = self._beat, None
        if beat is not None:
            beat.cancel()

    def _expect(self) -> None:
        self._beat = self._reactor.callLater(BEAT, self._look, self._reactor.seconds() + BEAT)

    def _look(self, due: float) -> None:
        self._delay.observe(self._reactor.seconds() - due)
        self._expect()

    # -- the page

    def render(self) -> tuple[bytes, bytes]:
        """The content type and the text of the page (Prometheus' text format 0.0.4).

        The first call imports prometheus-client, which takes long enough to be done in a thread; there it
        may be called whenever the three callables may. Numbers of one page can then be a moment apart.
        """
        from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, CollectorRegistry, ProcessCollector
        from prometheus_client.exposition import generate_latest
        from prometheus_client.registry import Collector

        families = self._families

        class Own(Collector):
            def collect(self) -> Iterator[Metric]:
                return families()

        registry = CollectorRegistry()
        registry.register(Own())
        ProcessCollector(registry=registry)
        return CONTENT_TYPE_PLAIN_0_0_4.encode("ascii"), generate_latest(registry)

    def _families(self) -> Iterator[Metric]:
        """Our own part of the page. Dicts are copied in one step: another thread may be counting."""
        from prometheus_client.core import CounterMetricFamily as Count
        from prometheus_client.core import GaugeMetricFamily as Gauge
        from prometheus_client.core import InfoMetricFamily

        yield InfoMetricFamily("fileexport_build", "The program.", {"version": self._version})
        answered = Count("fileexport_requests", "Requests that were answered.", labels=("method", "status"))
        for (method, status), number in sorted(dict(self._requests).items()):
            answered.add_metric((method, str(int(status))), number)
        yield answered
        yield Count("fileexport_response_bytes", "Bytes of bodies that were sent.", self._sent)
        yield self._seconds.family("fileexport_request_seconds", "From a request's head to its answer's end.")
        yield Gauge("fileexport_connections", "Connections that stand.", self._connections())
        yield Count("fileexport_connections", "Connections that came in.", self._accepted())
        jobs = Gauge("fileexport_jobs", "Jobs that are kept.", labels=("state",))
        ended = Count("fileexport_jobs_ended", "Jobs that came to an end.", labels=("state",))
        sent = Count("fileexport_callbacks", "Attempts to deliver a callback.", labels=("outcome",))
        for family, numbers in ((jobs, self._jobs()), (ended, self._jobs_ended), (sent, self._callbacks)):
            for label, number in sorted(dict(numbers).items()):
                family.add_metric((label,), number)
            yield family
        yield self._delay.family("fileexport_reactor_delay_seconds", "How late a timer of the reactor was.")


class CountedCalls:
    """Makes calls as another does, and counts each attempt by its outcome.

    It was delivered (2xx), rejected (by any other answer), or it failed: there was no answer. What is cut off
    by a stop is made again, and counts then.
    """

    def __init__(self, calls: Calls, count: Callable[[str], None]) -> None:
        self._calls = calls
        self._count = count

    async def check(self, target: Target, asker: Asker) -> None:
        await self._calls.check(target, asker)

    async def call(
        self, target: Target, asker: Asker, fields: Mapping[str, str], body: bytes | None = None
    ) -> Answer:
        try:
            answer = await self._calls.call(target, asker, fields, body)
        except CancelledError:
            raise
        except Exception:
            self._count("failed")
            raise
        self._count("delivered" if 200 <= answer.status < 300 else "rejected")
        return answer
