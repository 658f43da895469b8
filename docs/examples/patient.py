"""Try again after what may pass by itself."""

import time
from collections.abc import Callable, Iterable
from typing import TypeVar

from fileexport import BusyError, ChangedWhileRead, OverloadedError

T = TypeVar("T")


def patiently(call: Callable[[], T], pauses: Iterable[float] = (1, 5, 30)) -> T:
    """What `call` returns; it may be called several times, so give it what does no harm twice."""
    for pause in pauses:
        try:
            return call()
        except (BusyError, ChangedWhileRead, OverloadedError, ConnectionError, TimeoutError):
            time.sleep(pause)
    return call()
