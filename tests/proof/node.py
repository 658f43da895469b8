"""Node.js, and what `package.json` beside this file asks npm for: `make proof` installs it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.proof.daemon import PATIENCE

_WANTED = Path(__file__).with_name("package.json")
#: Where the Makefile lets npm install: beside this Python's packages.
HOME = Path(sys.prefix) / "node"
PACKAGES = HOME / "node_modules"


def _missing() -> str | None:
    if shutil.which("node") is None:
        return "there is no node here (Debian's package nodejs)"
    for name, version in json.loads(_WANTED.read_bytes())["dependencies"].items():
        try:
            found = json.loads((PACKAGES / name / "package.json").read_bytes())["version"]
        except FileNotFoundError:
            return f"npm has not installed {name}: `make proof` does, where npm is (Debian's package npm)"
        if found != version:
            return f"{name} is installed in version {found}, not {version}: `make proof` installs it again"
    return None


#: For trial's `skip`: why nothing of npm's can be used here, or None.
MISSING = _missing()


def script(name: str, path: str) -> str:
    """The text of a file of the package `name`."""
    return (PACKAGES / name / path).read_text(encoding="utf-8")


def run_script(
    source: str, *args: str, cwd: Path | None = None, patience: float = PATIENCE
) -> subprocess.CompletedProcess[str]:
    """Run JavaScript in node to its end; `require` finds the packages."""
    return subprocess.run(
        ("node", "-e", source, "--", *args),
        cwd=cwd,
        env=os.environ | {"NODE_PATH": str(PACKAGES)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=patience,
        check=False,
    )
