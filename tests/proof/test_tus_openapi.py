"""The daemon does what tus's published OpenAPI description says; it is not a part of this project.

`FILEEXPORT_TUS_OPENAPI` names a copy of it: OpenAPI/openapi3.yaml of the repository
https://github.com/tus/tus-resumable-upload-protocol.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.proof.counts import SOAK, Tally
from tests.proof.daemon import CHECKOUT, Daemon

DESCRIPTION = os.environ.get("FILEEXPORT_TUS_OPENAPI", "")
#: Cases for each operation and phase.
EXAMPLES = 300 if SOAK else 10
#: Seconds after which schemathesis has failed; no time is asserted.
PATIENCE = 3600.0 if SOAK else 300.0
tally = Tally("cases from tus's OpenAPI description")


class TusOpenApiTests(SynchronousTestCase):
    """A daemon that this process's user may upload to."""

    if not DESCRIPTION:
        skip = "FILEEXPORT_TUS_OPENAPI names no copy of tus's OpenAPI/openapi3.yaml"

    def test_conformance(self) -> None:
        """Every operation answers as the description says, and the protocol's text where that says more."""
        base = Path(self.mktemp())
        (base / "root").mkdir(parents=True)
        with Daemon(base / "root") as daemon:
            url = daemon.url.rstrip("/")
            more = {
                "SCHEMATHESIS_HOOKS": "tests.proof.tus_hooks",
                "PYTHONPATH": str(CHECKOUT),
                "TUS_DAEMON": url,
            }
            done = subprocess.run(
                (
                    str(Path(sys.executable).parent / "schemathesis"),
                    *("--config-file", str(CHECKOUT / "tests/proof/data/schemathesis_tus.toml")),
                    *("run", str(Path(DESCRIPTION).absolute()), "--url", url),
                    *("--max-examples", str(EXAMPLES), "--max-redirects", "0", "--no-color"),
                    "--continue-on-failure",
                    *(("--generation-database", "none") if SOAK else ("--generation-deterministic",)),
                ),
                # It leaves files where it runs.
                cwd=base,
                env=os.environ | more,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                encoding="utf-8",
                timeout=PATIENCE,
                check=False,
            )
            self.assertEqual(done.returncode, 0, done.stdout)
            self.assertNotIn("Traceback", daemon.output)
            patched = re.findall(r'"PATCH \S+ HTTP/1.1" (\d+)', daemon.output)
        self.assertIn("204", patched)
        found = re.search(r"(\d+) generated", done.stdout)
        assert found is not None, done.stdout
        tally.add(int(found[1]))
