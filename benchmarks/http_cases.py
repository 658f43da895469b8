"""The cases `http.…`: bulk, tls, small, listing, put, idle. Clients are curl, wrk, and sockets of our own."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks import Case, Contender, Measure, Metric, Missing
from benchmarks.http_put import PUT
from benchmarks.http_servers import CONNECTIONS, OURS, PEERS, Kind, make_key
from benchmarks.idle import allow_descriptors, hold
from benchmarks.processes import Server, program, run

#: Bytes of the file that is downloaded, where memory and disk have room for it, and at least.
BULK = 2 << 30
BULK_LEAST = 64 << 20
#: Files in the directory that is listed.
LISTED = 10_000
#: Seconds that wrk asks in one round, its connections for small files, and seconds that curl may take.
WRK_TIME = 3
SMALL_CONNECTIONS = 32
CURL_LIMIT = 120
#: Idle connections in a short and in a full run.
IDLE, IDLE_FULL = 2_000, 10_000

_FILES, _KEY = "files", "key.pem"
_DONE = re.compile(r"^ +(\d+) requests in ([\d.]+)(ms|s|m),", re.MULTILINE)
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0}
#: One cipher for all, the one that OpenSSL's servers choose, and HTTP/1.1 where a peer speaks more.
_TLS = "--tlsv1.3 --tls13-ciphers TLS_AES_256_GCM_SHA384 --http1.1 --cacert".split()
_CPU_BULK = Metric("processor", "CPU s/GB", "lower")
_SPEED = Metric("speed", "GB/s", "higher")

#: What is asked of a running server: its figures from the server, its port, and the case's directory.
Ask = Callable[[Server, int, Path], Sequence[float]]


def _enter(kind: Kind, ask: Ask, *, key: bool = False) -> Contender:
    """A contender whose server runs through all rounds."""

    @contextmanager
    def enter(directory: Path) -> Iterator[Measure]:
        with kind.running(directory / _FILES, directory / _KEY if key else None) as (server, port):
            yield lambda: ask(server, port, directory)

    return Contender(kind.name, kind.peer, enter)


def _all(ask: Ask, *, key: bool = False) -> tuple[Contender, ...]:
    return tuple(_enter(kind, ask, key=key) for kind in (OURS, *PEERS))


# -- bulk and tls


def _bulk_size(directory: Path) -> int:
    """Bytes of a file that fits into a third of the free memory and half of the free disk."""
    facts = dict(line.split()[:2] for line in Path("/proc/meminfo").read_text().splitlines())
    cache = int(facts["MemAvailable:"]) * 1024 // 3
    room = max(BULK_LEAST, min(BULK, cache, shutil.disk_usage(directory).free // 2))
    return room >> 20 << 20


def _prepare_bulk(directory: Path) -> str:
    size = _bulk_size(directory)
    block = os.urandom(1 << 20)
    with (directory / _FILES / "bulk.bin").open("wb") as file:
        for _ in range(size >> 20):
            file.write(block)
    return f"a file of {size / 1e9:.2f} GB, plain, curl to /dev/null"


def _prepare_tls(directory: Path) -> str:
    make_key(directory / _KEY)
    return _prepare_bulk(directory).replace("plain", "TLS 1.3")


def _download(server: Server, port: int, directory: Path) -> Sequence[float]:
    """GB/s, and processor seconds for a GB."""
    key = directory / _KEY
    encrypted = key.exists()
    words = [*(_TLS if encrypted else ()), *([str(key)] if encrypted else ())]
    form = "%{http_code} %{size_download} %{time_total}"
    url = f"{'https' if encrypted else 'http'}://127.0.0.1:{port}/bulk.bin"
    before = server.cpu()
    said = run(
        [program("curl", "curl"), "-sS", "-m", str(CURL_LIMIT), *words, "-o", "/dev/null", "-w", form, url],
        CURL_LIMIT + 10,
    )
    spent = server.cpu() - before
    status, size, seconds = said.split()
    wanted = (directory / _FILES / "bulk.bin").stat().st_size
    if status != "200" or int(size) != wanted:
        raise Missing(f"status {status} with {size} bytes of {wanted}")
    return wanted / 1e9 / float(seconds), spent / (wanted / 1e9)


# -- small and listing


def _wrk(server: Server, url: str, connections: int, *headers: str) -> tuple[float, float]:
    """Requests a second, and processor seconds of the server for one."""
    words = ["-t1", f"-c{connections}", f"-d{WRK_TIME}s", "--timeout", "10s"]
    words += [word for header in headers for word in ("-H", header)]
    before = server.cpu()
    said = run([program("wrk", "wrk"), *words, url], WRK_TIME + 30)
    spent = server.cpu() - before
    done = _DONE.search(said)
    if done is None or done[1] == "0":
        raise Missing("no request was answered")
    for line in said.splitlines():
        if "Non-2xx" in line or "Socket errors" in line:
            raise Missing(line.strip())
    count = int(done[1])
    return count / (float(done[2]) * _SECONDS[done[3]]), spent / count


def _small(size: int) -> Case:
    name = f"{size}.bin"

    def prepare(directory: Path) -> str:
        (directory / _FILES / name).write_bytes(os.urandom(size))
        return f"a file of {size} bytes, keep-alive, wrk with {SMALL_CONNECTIONS} connections"

    def ask(server: Server, port: int, directory: Path) -> Sequence[float]:
        rate, cost = _wrk(server, f"http://127.0.0.1:{port}/{name}", SMALL_CONNECTIONS)
        return rate, cost * 1e6

    speed = Metric("speed", "requests/s", "higher")
    return Case((speed, Metric("processor", "CPU µs/request", "lower")), _all(ask), prepare)


def _prepare_listing(directory: Path) -> str:
    for number in range(LISTED):
        (directory / _FILES / f"orders-{number:05}.sql").write_bytes(b"x" * (number % 100))
    return f"{LISTED} files as JSON, one connection"


def _ask_listing(path: str) -> Ask:
    def ask(server: Server, port: int, directory: Path) -> Sequence[float]:
        rate, cost = _wrk(server, f"http://127.0.0.1:{port}{path}", 1, "Accept: application/json")
        return 1000 / rate, cost * 1000

    return ask


def _listing(path: str) -> Case:
    """Ours under `path`, against the peers that have JSON listings."""
    peers = [_enter(kind, _ask_listing("/")) for kind in PEERS if kind.peer in ("nginx", "caddy")]
    metrics = Metric("time", "ms", "lower"), Metric("processor", "CPU ms/request", "lower")
    return Case(metrics, (_enter(OURS, _ask_listing(path)), *peers), _prepare_listing)


# -- idle


def _idle(count: int) -> Case:
    def prepare(directory: Path) -> str:
        (directory / _FILES / "1024.bin").write_bytes(os.urandom(1024))
        allow_descriptors(CONNECTIONS)
        return f"{count} connections that asked for 1 kB once and stay"

    def contender(kind: Kind) -> Contender:
        @contextmanager
        def enter(directory: Path) -> Iterator[Measure]:
            def measure() -> Sequence[float]:
                # A new server each time: memory that was used once stays with the process.
                with kind.running(directory / _FILES) as (server, port):
                    return hold(server, port, "/1024.bin", count)

            yield measure

        return Contender(kind.name, kind.peer, enter)

    memory = Metric("memory", "kB/connection", "lower")
    return Case(
        (memory, Metric("held", "connections", "higher")),
        tuple(map(contender, (OURS, *PEERS))),
        prepare,
    )


def _in_files(case: Case) -> Case:
    """The same case with the directory made that servers serve."""

    def prepare(directory: Path) -> str:
        (directory / _FILES).mkdir()
        return case.prepare(directory)

    return Case(case.metrics, case.contenders, prepare)


def http_cases(*, full: bool) -> dict[str, Case]:
    """Every case of this file by its name; `full` takes the counts that need a large machine."""
    cases = {
        "bulk": Case((_SPEED, _CPU_BULK), _all(_download), _prepare_bulk),
        "tls": Case((_SPEED, _CPU_BULK), _all(_download, key=True), _prepare_tls),
        "small.1k": _small(1024),
        "small.10k": _small(10 * 1024),
        "listing.json": _listing("/?json"),
        "listing.list": _listing("/list?dir=/"),
        "put": PUT,
        "idle": _idle(IDLE_FULL if full else IDLE),
    }
    return {f"http.{name}": _in_files(case) for name, case in cases.items()}
