"""`fileexport` with shorter deadlines: a proof would wait minutes for those that it has. See `SECONDS`."""

from __future__ import annotations

from fileexport.cli import main
from fileexport.disk import sender
from fileexport.web import connection
from tests.proof.counts import SOAK

#: Deadlines by their names; in a soak they are the daemon's own.
SECONDS: dict[str, float] = {
    "HEAD_TIME": 3.0,
    "IDLE_TIME": 5.0,
    "BODY_TIME": 5.0,
    "STALL_TIME": 5.0,
    "LINGER_TIME": 2.0,
}
if SOAK:
    SECONDS = {name: getattr(connection, name) for name in SECONDS}
#: The longest way to the end of a connection: a deadline, and the time to close in.
LONGEST = max(SECONDS.values()) + SECONDS["LINGER_TIME"]


def shorten() -> None:
    """Use `SECONDS` in this process."""
    for name, seconds in SECONDS.items():
        if not hasattr(connection, name):
            raise AttributeError(name)
        setattr(connection, name, seconds)
    sender.Valve.__init__.__defaults__ = (SECONDS["STALL_TIME"],)


if __name__ == "__main__":
    shorten()
    main()
