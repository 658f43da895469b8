"""Test vectors of the transfer protocol, for every language: see docs/protocol.md."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

HERE = Path(__file__).resolve().parent
#: Larger integers are not exact in every reader of JSON.
EXACT = 2**53


def plain(value: Any) -> Any:
    """A value of MessagePack as JSON: bytes are {"bin": hex}, large integers {"int": digits}."""
    if isinstance(value, bytes):
        return {"bin": value.hex()}
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, int) and abs(value) >= EXACT:
        return {"int": str(value)}
    return value


def compare(case: SynchronousTestCase, name: str, rows: Sequence[dict[str, Any]]) -> None:
    """Fail unless the file `name` here says what the code says; the code's version is left to be seen."""
    text = "[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n"
    committed = HERE / name
    if not committed.exists() or committed.read_text("utf-8") != text:
        found = Path(case.mktemp())
        found.write_text(text, "utf-8")
        case.fail(f"{name} differs from the code; a vector is a promise. The code says {found.absolute()}")
