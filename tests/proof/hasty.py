"""`fileexport` with shorter deadlines: with those that it has, a proof would wait for minutes."""

from __future__ import annotations

import sys

from fileexport.cli import main
from fileexport.disk import sender
from fileexport.web import connection
from tests.proof.commands import FILEEXPORT
from tests.proof.counts import SOAK

#: The short deadlines, and the daemon's own, by their names.
SHORT = {"HEAD_TIME": 3.0, "IDLE_TIME": 5.0, "BODY_TIME": 5.0, "STALL_TIME": 5.0, "LINGER_TIME": 2.0}
OWN: dict[str, float] = {name: getattr(connection, name) for name in SHORT}
#: Those of the daemons that `COMMAND` starts: a soak takes its time. A daemon does not hear of a soak.
SECONDS = OWN if SOAK else SHORT
COMMAND = (FILEEXPORT,) if SOAK else (sys.executable, "-m", "tests.proof.hasty")
#: The longest way to the end of a connection: a deadline, and the time to close in.
LONGEST = max(SECONDS.values()) + SECONDS["LINGER_TIME"]


def shorten() -> None:
    """Use the short deadlines in this process."""
    for name, seconds in SHORT.items():
        setattr(connection, name, seconds)
    sender.Valve.__init__.__defaults__ = (SHORT["STALL_TIME"],)


if __name__ == "__main__":
    shorten()
    main()
