"""The daemon does what its OpenAPI document says: schemathesis asks what may be asked, and what may not."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.proof.counts import SOAK, Tally
from tests.proof.daemon import CHECKOUT, Daemon

TOKEN = "a-token-that-may-do-everything-1"
#: Signs webhooks: any 32 bytes.
SECRET = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
#: Cases for each operation and phase.
EXAMPLES = 300 if SOAK else 4
#: Seconds after which schemathesis has failed; no time is asserted.
PATIENCE = 3600.0 if SOAK else 600.0
EXCLUDED = (
    # It ends the daemon.
    *("--exclude-path", "/stop"),
    # It does not end.
    *("--exclude-name", "GET /-/events"),
)
_AUTH = ("--checks", "ignored_auth", "--phases", "examples,coverage")
_CHANGES = "^/-/(files|new|move|remove|pack)"
#: Each run's options. They run at once: the daemon answers a wrong token only after a second, and two of them
#: are sent to each operation.
RUNS = {
    "JSON wanted": ("--header", "Accept: application/json", "--exclude-checks", "ignored_auth"),
    "anything wanted": (
        *("--exclude-checks", "ignored_auth"),
        # What is answered does not depend on how it is reached, and that was tried already.
        *(() if SOAK else ("--phases", "examples,coverage", "--exclude-path-regex", "^/-/files")),
    ),
    "wrong tokens": (*_AUTH, "--exclude-path-regex", "^/-/"),
    "wrong tokens for changes": (*_AUTH, "--include-path-regex", _CHANGES),
    "wrong tokens below /-/": (
        *(*_AUTH, "--include-path-regex", "^/-/"),
        *("--exclude-path-regex", _CHANGES),
    ),
}
tally = Tally("cases from the OpenAPI document")


class OpenApiTests(SynchronousTestCase):
    """A daemon with some files, asked with a token that has every right."""

    def setUp(self) -> None:
        self.base = base = Path(self.mktemp())
        root = base / "root"
        (root / "dumps").mkdir(parents=True)
        for name in ("notes.txt", "dumps/notes.txt", "dumps/old.txt", "dumps/orders.sql"):
            (root / name).write_text(f"-- {name}\n" * 100)
        tokens = base / "tokens"
        tokens.touch(0o600)
        tokens.write_text(f"{TOKEN} name=tester secret={SECRET}\n")
        self.daemon = Daemon(root, "--token-file", str(tokens.absolute()), "--anonymous", "none")
        self.daemon.__enter__()
        self.addCleanup(self.daemon.kill)

    def command(self, *args: str) -> tuple[str, ...]:
        """A run of schemathesis; the random cases are the same each time unless there are many."""
        return (
            str(Path(sys.executable).parent / "schemathesis"),
            *("--config-file", str(CHECKOUT / "tests/proof/data/schemathesis.toml")),
            *("run", f"{self.daemon.url}-/openapi.json", *EXCLUDED, *args),
            *("--header", f"Authorization: Bearer {TOKEN}", "--max-examples", str(EXAMPLES)),
            *("--max-redirects", "0", "--no-color", "--continue-on-failure"),
            *(("--generation-database", "none") if SOAK else ("--generation-deterministic",)),
        )

    def run_schemathesis(self, name: str) -> str:
        """Its report, with its exit status on the last line."""
        done = subprocess.run(
            self.command(*RUNS[name]),
            # It leaves files where it runs.
            cwd=self.base,
            env=os.environ | {"SCHEMATHESIS_HOOKS": "tests.proof.openapi_hooks", "PYTHONPATH": str(CHECKOUT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            timeout=PATIENCE,
            check=False,
        )
        return f"{done.stdout}\nexit status {done.returncode}"

    def test_conformance(self) -> None:
        """Every operation answers as the document says: valid and invalid requests, states, wrong tokens."""
        with ThreadPoolExecutor() as pool:
            reports = list(pool.map(self.run_schemathesis, RUNS))
        bad = [report for report in reports if not report.endswith("exit status 0")]
        self.assertEqual(bad, [], "\n".join(bad))
        for name, report in zip(RUNS, reports, strict=True):
            found = re.search(r"(\d+) generated", report)
            assert found is not None, report
            tally.add(int(found[1]), name)
        self.assertNotIn("Traceback", self.daemon.output)
