"""Jobs as their users know them: by wget, killed at any moment, refused callbacks, a full disk."""

from __future__ import annotations

import hashlib
import json
import os
import random
import socket
import subprocess
import sys
import tarfile
import time
from collections import defaultdict
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from twisted.trial.unittest import SkipTest

from fileexport.tokens import generate_token
from tests.proof import strange_names
from tests.proof.callers import Receiver, Reply, own_address, say
from tests.proof.commands import Command, DaemonCase, eventually, run
from tests.proof.counts import SOAK, Tally
from tests.proof.daemon import CHECKOUT, PATIENCE, Daemon
from tests.proof.small_disk import in_small_disk
from tests.proof.strange_names import Names

SECRET = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
JOBS = 20
KILLS = 30 if SOAK else 5
#: Bytes of a source: its job lasts a good part of the time between two kills.
SOURCE = (24 if SOAK else 6) << 20
#: Seconds after its banner in which a daemon may be killed.
LIFE = 0.6
REFUSED = "this callback target is not allowed"
_TALLY = Tally("jobs of killed daemons")


def text(seed: int, size: int) -> bytes:
    """Text that compresses to about a third, the same for equal seeds."""
    chance = random.Random(seed)
    words = [b"%x" % chance.getrandbits(40) for _ in range(500)]
    line = b" ".join(chance.choices(words, k=4000)) + b"\n"
    return (line * (size // len(line) + 1))[:size]


def content_of(archive: Path, name: str) -> str:
    """The hash of the only member of an archive, which must be whole and have this name."""
    with tarfile.open(archive, "r:gz") as tar:
        [member] = tar.getmembers()
        assert member.name == name, member.name
        file = tar.extractfile(member)
        assert file is not None
        return hashlib.sha256(file.read()).hexdigest()


class JobCase(DaemonCase):
    """Has a token whose webhooks are signed."""

    def setUp(self) -> None:
        super().setUp()
        self.token = generate_token()
        line = f"{self.token} name=tester secret={SECRET}\n"
        self.tokens = self.write("tokens", line.encode(), 0o600)
        self.bearer = {"Authorization": f"Bearer {self.token}"}

    def daemon(self, *args: str) -> Daemon:
        """A daemon that knows the token."""
        return Daemon(self.root, "--token-file", str(self.tokens), *args)

    def staged(self) -> list[str]:
        """What lies in staging, wherever that is."""
        return [str(path) for path in self.root.rglob(".fileexport/*")]


class WgetTests(JobCase):
    """The forerunner's line, as it stands in people's scripts."""

    def test_tar(self) -> None:
        """`working ...` comes at once, the ping after the archive is complete, which every tool can read."""
        dump = self.write("root/dir_1/db-dump.sql", text(1, 3 << 20))
        archive = dump.with_name("db-dump.tgz")
        with self.daemon() as daemon, Receiver() as receiver:
            target = (
                f"tar?dir=dir_1&name=db-dump.sql&host=localhost&port={receiver.port}&path=/ping?id=A1B2C3"
            )
            done = run("wget", "-qO-", daemon.url + target)
            self.assertEqual((done.returncode, done.stdout), (0, b"working ..."), done.stderr)
            daemon.expect(r"CALLBACK: 200 - OK: thank you$")
            [call] = receiver.calls
            self.assertEqual((call.method, call.target), ("GET", "/ping?id=A1B2C3"))
            self.assertEqual(run("gzip", "-t", archive).returncode, 0)
            self.assertEqual(run("tar", "tzf", archive).stdout, b"db-dump.sql\n")
            self.assertEqual(run("tar", "xzOf", archive).stdout, dump.read_bytes())
            listed = json.loads(run("wget", "-qO-", daemon.url + "list?dir=dir_1").stdout)
            self.assertEqual([entry["name"] for entry in listed], ["db-dump.sql", "db-dump.tgz"])
            got = run("wget", "-qO-", daemon.url + "get?dir=dir_1&name=db-dump.tgz").stdout
            self.assertEqual(got, archive.read_bytes())


class ManualTests(JobCase):
    """What the manual shows."""

    def test_receiver(self) -> None:
        """The receiver of the manual takes a webhook for the daemon's own by the published library."""
        self.write("root/d/dump.sql", text(1, 1000))
        with Receiver() as placeholder:
            port = placeholder.port
        example = CHECKOUT / "docs/examples/receiver.py"
        with subprocess.Popen(
            (sys.executable, str(example), SECRET, str(port)), stdout=subprocess.PIPE
        ) as receiver:
            self.addCleanup(receiver.kill)
            eventually("the receiver listens", lambda: listens(port))
            with self.daemon() as daemon:
                hook = {"path": "/d/dump.sql", "callback": f"http://127.0.0.1:{port}/"}
                self.assertEqual(say(daemon.url, "POST", "/-/jobs", hook, self.bearer).status, 202)
                daemon.expect(r"CALLBACK: 204 - No Content")
            receiver.kill()
            assert receiver.stdout is not None
            self.assertEqual(receiver.stdout.read(), b"job.done /d/dump.tgz\n")


class KillTests(JobCase):
    """kill -9 in the middle of a queue, again and again."""

    def setUp(self) -> None:
        super().setUp()
        self.hashes: dict[str, str] = {}
        for number in range(JOBS):
            source = text(number, SOURCE)
            self.write(f"root/d/s{number}.sql", source)
            self.hashes[f"s{number}"] = hashlib.sha256(source).hexdigest()
        self.jobs: dict[str, str] = {}
        self.seen: dict[str, tuple[int, int]] = {}

    def order(self, daemon: Daemon, receiver: Receiver, round_: int) -> None:
        """Ask for every job of a round that has not been acknowledged yet, until the daemon is gone."""
        for number in range(JOBS):
            key = f"{round_}-{number}"
            if key in self.jobs:
                continue
            wanted = {"path": f"/d/s{number}.sql", "callback": f"http://127.0.0.1:{receiver.port}/{key}"}
            reply = say(daemon.url, "POST", "/-/jobs", wanted, {**self.bearer, "Idempotency-Key": key})
            self.assertEqual(reply.status, 202, reply)
            self.jobs[key] = reply.value["id"]

    def check_archives(self) -> None:
        """Whatever is seen under a final name is complete."""
        for archive in (self.root / "d").glob("*.tgz"):
            status = archive.stat()
            state = (status.st_ino, status.st_mtime_ns)
            if self.seen.get(archive.name) != state:
                self.assertEqual(content_of(archive, f"{archive.stem}.sql"), self.hashes[archive.stem])
                self.seen[archive.name] = state

    def life(self, receiver: Receiver, round_: int, chance: random.Random) -> bool:
        """One daemon, from its start to its death by kill -9; whether the round's jobs have all ended."""
        with self.daemon() as daemon:
            deadline = time.monotonic() + chance.uniform(0, LIFE)
            try:
                self.order(daemon, receiver, round_)
                while time.monotonic() < deadline:
                    if self.all_done(daemon, round_):
                        return True
                return False
            except (OSError, HTTPException) as error:
                raise AssertionError(f"the daemon went away by itself:\n{daemon.output}") from error
            finally:
                daemon.kill()

    def all_done(self, daemon: Daemon, round_: int) -> bool:
        states = {job["id"]: job["state"] for job in self.listing(daemon)}
        mine = [states[job] for key, job in self.jobs.items() if key.startswith(f"{round_}-")]
        return len(mine) == JOBS and set(mine) == {"done"}

    def listing(self, daemon: Daemon) -> list[dict[str, Any]]:
        value: list[dict[str, Any]] = say(daemon.url, "GET", "/-/jobs", None, self.bearer).value
        return value

    def test_killed(self) -> None:
        """Every acknowledged job ends with one whole archive and is told of at least once, by one id."""
        chance, round_ = random.Random(20261121), 0
        with Receiver() as receiver:
            for _ in range(KILLS):
                if self.life(receiver, round_, chance):
                    round_ += 1
                self.check_archives()
            with self.daemon() as daemon:
                self.order(daemon, receiver, round_)
                eventually("all jobs are done", lambda: self.all_done(daemon, round_))
                self.check_archives()
                eventually("all were told", lambda: self.told(receiver) >= set(self.jobs))
                self.assertEqual(daemon.stop(), 0)
            ids = defaultdict(set)
            for call in receiver.calls:
                event = json.loads(call.body)
                self.assertEqual(event["type"], "job.done")
                self.assertEqual(event["data"]["id"], self.jobs[call.target[1:]])
                ids[call.target[1:]].add(call.fields["webhook-id"])
            self.assertEqual({key: len(found) for key, found in ids.items()}, dict.fromkeys(self.jobs, 1))
        self.assertEqual(len(self.seen), JOBS)
        self.assertEqual(self.staged(), [])
        _TALLY.add(len(self.jobs), f"{KILLS} kills")

    def test_retried(self) -> None:
        """A callback that nobody took before a kill comes after it, by the same id."""
        self.write("root/d/f.sql", text(1, 1000))
        with Receiver() as placeholder:
            port = placeholder.port
        with self.daemon() as daemon:
            wanted = {"path": "/d/f.sql", "callback": f"http://127.0.0.1:{port}/hook"}
            job = f"/-/jobs/{say(daemon.url, 'POST', '/-/jobs', wanted, self.bearer).value['id']}"
            eventually("an attempt was noted", lambda: self.callback(daemon, job)["attempts"])
            first = self.callback(daemon, job)
            daemon.kill()
        self.assertEqual((first["state"], first["attempts"][0]["error"]), ("due", "connection refused"))
        with Receiver(port=port) as receiver, self.daemon() as daemon:
            daemon.expect(r"CALLBACK: 200 - OK: thank you$")
            [call] = receiver.calls
            self.assertEqual(call.fields["webhook-id"], first["id"])
            eventually("it is noted", lambda: self.callback(daemon, job)["state"] == "delivered")
            self.assertEqual([a["status"] for a in self.callback(daemon, job)["attempts"]], [None, 200])

    def callback(self, daemon: Daemon, job: str) -> dict[str, Any]:
        """The one callback of a job, with the attempts to deliver it."""
        [callback] = say(daemon.url, "GET", job, None, self.bearer).value["callbacks"]
        return dict(callback)

    def told(self, receiver: Receiver) -> set[str]:
        return {call.target[1:] for call in tuple(receiver.calls)}


class RefusedTests(JobCase):
    """Callbacks that must not be made: nobody hears of them, and all are refused with the same words."""

    def setUp(self) -> None:
        super().setUp()
        self.write("root/d/f.sql", text(1, 1000))

    def ask(self, daemon: Daemon, host: str, port: int, fields: dict[str, str] | None = None) -> list[Reply]:
        """Ask for a plain callback and for a webhook to that place."""
        fields = {**self.bearer, **(fields or {})}
        place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        wanted = {"path": "/d/f.sql", "callback": f"http://{place}/hook"}
        plain = f"/tar?dir=d&name=f.sql&host={host}&port={port}&path=/ping"
        return [
            say(daemon.url, "GET", plain, None, fields),
            say(daemon.url, "POST", "/-/jobs", wanted, fields),
        ]

    def assert_refused(self, replies: list[Reply]) -> None:
        for reply in replies:
            self.assertEqual((reply.status, reply.value["detail"]), (403, REFUSED))

    def test_places(self) -> None:
        """Our own ports, link-local and metadata addresses in all spellings, and other hosts are refused."""
        with self.daemon() as daemon, Receiver() as receiver:
            own = int(daemon.url.rpartition(":")[2].rstrip("/"))
            for host, port in (
                ("127.0.0.1", own),
                ("localhost", own),
                ("::ffff:127.0.0.1", own),
                ("169.254.169.254", 80),
                ("::ffff:169.254.169.254", 80),
                ("64:ff9b::a9fe:a9fe", 80),
                ("fe80::1", 80),
                ("0.0.0.0", receiver.port),
                ("224.0.0.1", 80),
                ("2130706433", receiver.port),
                ("0x7f.1", receiver.port),
                ("192.0.2.1", 80),
            ):
                self.assert_refused(self.ask(daemon, host, port))
            self.assertEqual(receiver.connections, 0)
            self.assertEqual(say(daemon.url, "GET", "/-/jobs", None, self.bearer).value, [])
            self.assertNotIn("/ping HTTP", daemon.output.replace("path=/ping HTTP", ""))

    def test_through_a_proxy(self) -> None:
        """Who came through a proxy may not have this machine called, however it is named."""
        with self.daemon() as daemon, Receiver() as receiver:
            for host in ("127.0.0.1", "localhost", "127.9.9.9"):
                forwarded = {"X-Forwarded-For": "127.0.0.1"}
                self.assert_refused(self.ask(daemon, host, receiver.port, forwarded))
            self.assertEqual(receiver.connections, 0)
            self.assertEqual([r.status for r in self.ask(daemon, "127.0.0.1", receiver.port)], [200, 202])
            eventually("the allowed ones came", lambda: len(receiver.calls) == 2)

    def test_own_address(self) -> None:
        """An address of this machine is this machine: not for whom a proxy speaks, unless it is allowed."""
        host = own_address()
        if host is None:
            raise SkipTest("this machine has no address but loopback")
        forwarded = {"X-Forwarded-For": "127.0.0.1"}
        with Receiver(host) as receiver:
            with self.daemon() as daemon:
                self.assert_refused(self.ask(daemon, host, receiver.port, forwarded))
                self.assertEqual(receiver.connections, 0)
                self.assertEqual([r.status for r in self.ask(daemon, host, receiver.port)], [200, 202])
                eventually("the allowed ones came", lambda: len(receiver.calls) == 2)
            # A state of its own: the first daemon was killed, and what it had sent may be sent again.
            other = ("--state", str(self.base / "other"))
            with self.daemon("--callback-allow", f"{host}:{receiver.port}", *other) as daemon:
                replies = self.ask(daemon, host, receiver.port, forwarded)
                self.assertEqual([reply.status for reply in replies], [200, 202])
                eventually("those that the operator allows came", lambda: len(receiver.calls) == 4)

    def test_names(self) -> None:
        """A name with one forbidden address is refused: at the order and, if it changes, at the delivery."""
        both = ["127.0.0.1", "169.254.169.254"]
        names: Names = {
            "good.example": [["127.0.0.1"]],
            "both.example": [both],
            "back.example": [both[::-1]],
            "bound.example": [["127.0.0.1"], both],
        }
        with self.strange(names) as daemon, Receiver() as receiver:
            self.assert_refused(self.ask(daemon, "both.example", receiver.port))
            self.assert_refused(self.ask(daemon, "back.example", receiver.port))
            hook = {"path": "/d/f.sql", "callback": f"http://bound.example:{receiver.port}/hook"}
            self.assertEqual(say(daemon.url, "POST", "/-/jobs", hook, self.bearer).status, 202)
            daemon.expect(f"CALLBACK: failed.*: {REFUSED}, tried again in")
            self.assertEqual(receiver.connections, 0)
            # The names are asked: one that is good is called.
            self.assertEqual([r.status for r in self.ask(daemon, "good.example", receiver.port)], [200, 202])
            eventually("the good ones came", lambda: len(receiver.calls) == 2)
            self.assertEqual(receiver.connections, 2)

    def test_names_that_hang(self) -> None:
        """A name that is never found is in the way neither of other names nor of the daemon's end."""
        names: Names = {"slow.example": [None], "good.example": [["127.0.0.1"]]}
        with self.strange(names) as daemon, Receiver() as receiver:
            asking = HTTPConnection("127.0.0.1", urlsplit(daemon.url).port, PATIENCE)
            self.addCleanup(asking.close)
            wanted = "/tar?dir=d&name=f.sql&host=slow.example&port=80&path=/"
            asking.request("GET", wanted, None, self.bearer)
            daemon.expect(r"slow\.example is never found")
            asking.close()
            self.assertEqual([r.status for r in self.ask(daemon, "good.example", receiver.port)], [200, 202])
            eventually("the good ones came", lambda: len(receiver.calls) == 2)
            self.assertEqual(daemon.stop(), 0)
            self.assertIn("stopped while a thread was still at work", daemon.output)

    def strange(self, names: Names) -> Daemon:
        """A daemon to which these names mean something else."""
        words = (
            *strange_names.command(self.base / "names", names),
            "run",
            str(self.root),
            "-p",
            "0",
            "--transfer",
            "none",
        )
        state = ("--state", str(self.base / "state"), "--token-file", str(self.tokens))
        return Command(self.root, *words, *state)


class FullDiskTests(JobCase):
    """A disk that fills up in the middle of a job."""

    def test_full(self) -> None:
        """The job says that the disk is full, the old archive is as it was, and nothing stays in staging."""

        def check() -> None:
            source, old = os.urandom(6 << 20), os.urandom(100_000)
            (self.root / "big.bin").write_bytes(source)
            (self.root / "big.tgz").write_bytes(old)
            with self.daemon() as daemon:
                reply = say(daemon.url, "POST", "/-/jobs", {"path": "/big.bin"}, self.bearer)
                assert reply.status == 202, reply
                job = f"/-/jobs/{reply.value['id']}?wait=30"
                ended = say(daemon.url, "GET", job, None, self.bearer).value
                assert (ended["state"], ended["error"]) == ("failed", "the disk is full"), ended
                assert (self.root / "big.tgz").read_bytes() == old
                assert self.staged() == []
                # With no room at all the order itself is refused.
                (self.root / "ballast").write_bytes(bytes(max(0, _free(self.root) - 100_000)))
                reply = say(daemon.url, "POST", "/-/jobs", {"path": "/big.bin"}, self.bearer)
                assert reply.status == 507, reply

        in_small_disk(self, self.root, 8 << 20, check)


def listens(port: int) -> bool:
    """Whether the port accepts connections."""
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionError:
        return False
    return True


def _free(path: Path) -> int:
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize
