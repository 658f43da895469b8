"""`jobs`, `compress`: archives that a server makes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from fileexport.cli.connecting import Session, absolute, client_command
from fileexport.cli.output import REFUSED, Output, minutes

if TYPE_CHECKING:
    from fileexport.client.blocking import Format
    from fileexport.client.names import RemoteJob

FORMATS = ("tar.gz", "tar.zst", "zip", "gz", "zst")
#: Seconds that a question about a job may wait for its end; the time-out begins behind them.
_WAIT = 20


@click.command()
@click.option(
    "--limit", type=click.IntRange(1, 1000), default=100, show_default=True, help="At most so many."
)
@client_command
def jobs(session: Session, limit: int) -> None:
    """List your jobs on the server, the newest first."""
    output = session.output
    for job in session.client.jobs(limit, timeout=session.timeout):
        output.totals["jobs"] += 1
        _tell(output, job)
        if not output.as_json:
            error = f" ({job.error})" if job.error else ""
            what = f"{job.path} -> {job.target}{error}"
            output.line(f"{minutes(job.created)} {job.id} {job.state:<9} {_share(job):>4} {what}")


@click.command()
@click.argument("path")
@click.option(
    "--format", type=click.Choice(FORMATS), default="tar.gz", show_default=True, help="Of what kind."
)
@click.option("--wait", is_flag=True, help="Until the archive is there.")
@client_command
def compress(session: Session, path: str, format: Format, wait: bool) -> None:
    """Let the server make an archive.

    It holds the remote file or directory PATH, and comes to lie beside it. The last suffix of a file is
    replaced (db-dump.sql becomes db-dump.tgz), a directory's name is kept before the new one; gz and zst are
    for single files and are appended. An existing archive is replaced when the new one is complete. Without
    --wait the job goes on by itself: see fileexport jobs.
    """
    path = absolute(path)
    output = session.output
    output.subject = path
    output.resume = ": the job goes on, see fileexport jobs"
    job = session.client.compress(path, format, timeout=session.timeout)
    if wait:
        while job.state in ("queued", "running"):
            job = session.client.job(job.id, wait=_WAIT, timeout=session.timeout)
    _tell(output, job)
    if job.state == "failed":
        output.problem("JobFailed", 1, job.error or "the job failed", path)
    elif job.state == "cancelled":
        output.problem("JobCancelled", REFUSED, "the job was cancelled", path)
    else:
        output.say(job.target if job.state == "done" else f"{job.target} (job {job.id})")


def _tell(output: Output, job: RemoteJob) -> None:
    if output.as_json:
        output.event(
            *("job", job.path),
            id=job.id,
            state=job.state,
            target=job.target.encode("utf-8", "replace").decode("utf-8"),
            created=job.created / 1e9,
            bytes_done=job.bytes_done,
            bytes_total=job.bytes_total,
            error=job.error,
        )


def _share(job: RemoteJob) -> str:
    """How far a job is, where that is known."""
    if job.state == "done":
        return "100%"
    return f"{100 * job.bytes_done // job.bytes_total}%" if job.bytes_total else "-"
