"""A door whose jobs run when the test says so, and several who ask."""

from __future__ import annotations

import json
from typing import Any

from tests.http_client import Connection, HttpCase, HttpHarness, Response, encode
from tests.jobs_case import Turned

SECRET = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"
TOKENS = f"""
token-of-root name=root may=read,write,delete,admin
token-of-ann name=ann may=read,write secret={SECRET}
token-of-bob name=bob may=read,write under=/d
token-of-bobs-other name=bob may=read,write under=/e
token-of-bobs-same name=bob may=write under=/d
token-of-eve name=eve may=read
"""
ROOT, ANN, BOB, EVE = ({"Authorization": f"Bearer token-of-{name}"} for name in ("root", "ann", "bob", "eve"))
OTHER_BOB, SAME_BOB = ({"Authorization": f"Bearer token-of-bobs-{name}"} for name in ("other", "same"))
JSON = {"Content-Type": "application/json", "Accept": "application/json"}
PLAIN = "/tar?dir=d&name=dump.sql"
PING = "&host=localhost&port=9010&path=/ping?id=A1B2C3"


class HttpJobsCase(HttpCase):
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

    def news(self, connection: Connection) -> list[tuple[str, str]]:
        """Path and state in all events that came, in order."""
        found = []
        for line in connection.settle().decode().splitlines():
            if line.startswith("data: "):
                job = json.loads(line.removeprefix("data: "))
                found.append((job["path"], job["state"]))
        return found
