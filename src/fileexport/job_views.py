"""A job as JSON: the same in answers, events and webhooks."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from fileexport.disk.schema import AttemptRow, JobRow, MessageRow
from fileexport.meter import Progress
from fileexport.paths import printable


def shown(job: JobRow, progress: Progress | None) -> dict[str, Any]:
    """What everybody who may see the job is shown; times are in seconds since 1970."""
    order = json.loads(job.order)
    return {
        "id": job.id,
        "state": job.state,
        "path": printable(order["source"]),
        "target": printable(job.target),
        "format": order["format"],
        "created": job.created,
        "started": job.started,
        "ended": job.ended,
        "progress": None if progress is None else _progress(progress),
        "result": None if job.result is None else json.loads(job.result),
        "error": job.error,
    }


def _progress(progress: Progress) -> dict[str, Any]:
    return {
        "bytes": progress.bytes_done,
        "bytes_total": progress.bytes_total,
        "files": progress.files_done,
        "files_total": progress.files_total,
        "rate": round(progress.rate),
        "eta": None if progress.eta is None else round(progress.eta, 1),
    }


def shown_callback(messages: Iterable[MessageRow], attempts: Iterable[AttemptRow]) -> list[dict[str, Any]]:
    """Whom the job calls back, and what came of it; never a secret."""
    by_message: dict[str, list[dict[str, Any]]] = {}
    for attempt in attempts:
        entry = {"at": attempt.at, "status": attempt.status, "error": attempt.error}
        by_message.setdefault(attempt.message, []).append(entry)
    return [
        {
            "id": message.id,
            "kind": message.kind,
            "url": message.url,
            "state": message.state,
            "due": message.due,
            "attempts": by_message.get(message.id, []),
        }
        for message in messages
    ]
