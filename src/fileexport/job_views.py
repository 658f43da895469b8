"""Who sees a job, and what it looks like as JSON: the same in answers, events and webhooks."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterable
from typing import Any

import msgspec

from fileexport.disk.schema import AttemptRow, JobRow, MessageRow
from fileexport.jobs import Jobs
from fileexport.meter import Progress
from fileexport.paths import RelPath, printable
from fileexport.tokens import Principal, Right
from fileexport.web import pages
from fileexport.web.routes import OWN_NAMES


def seen_by(who: Principal) -> str | None:
    """Whose jobs somebody sees; None: everybody's. An admin of a part of the root sees nobody else's."""
    return None if who.may(Right.ADMIN) and not who.under else who.owner


async def job_of(jobs: Jobs, who: Principal, job: str) -> JobRow:
    """The job with this id. Raises `FileNotFoundError` also where it is none that `who` sees."""
    row = await jobs.get(job)
    if row is None or seen_by(who) not in (None, row.owner):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
    return row


def shown(
    job: JobRow, progress: Progress | None, prefix: str, names: frozenset[str] = OWN_NAMES
) -> dict[str, Any]:
    """What everybody who may see the job is shown; times are in seconds since 1970.

    `prefix` is what a reverse proxy puts before our paths, `names` are the first ones of paths of our own.
    """
    order = json.loads(job.order)
    return {
        "id": job.id,
        "state": job.state,
        "path": printable(order["source"]),
        "target": printable(order["target"]),
        "format": order["format"],
        "created": job.created,
        "started": job.started,
        "ended": job.ended,
        "cancelling": job.cancelling,
        "progress": None if progress is None else _progress(progress),
        "result": None if job.result is None else _result(job.result, order["target"], prefix, names),
        "error": job.error,
    }


def listing(
    jobs: Iterable[tuple[JobRow, Progress | None]], prefix: str, names: frozenset[str] = OWN_NAMES
) -> bytes:
    """Many jobs as JSON. What was skipped is only counted: its names are for those who ask for the job."""
    found = [shown(job, progress, prefix, names) for job, progress in jobs]
    for job in found:
        if job["result"] is not None:
            del job["result"]["skipped"]["entries"]
    return msgspec.json.encode(found)


def _result(result: str, target: str, prefix: str, names: frozenset[str]) -> dict[str, Any]:
    url = pages.url_of(RelPath.parse(target), prefix, names)
    return {**json.loads(result), "url": url}


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
        entry = {
            "at": attempt.at,
            "status": attempt.status,
            "error": attempt.error,
            "first_line": attempt.first_line,
        }
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
