"""The coroutine of an answer: run where it stands, and later only where it has something to wait for."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure


def run(answering: Coroutine[Deferred[Any], Any, None], failed: Callable[[Failure], object]) -> None:
    """Run an answer as far as it goes now, and the rest when what it awaits has come.

    `failed` is called with what it raises.
    """
    try:
        awaited = answering.send(None)
    except StopIteration:
        # As a rule: nothing was waited for, and a Deferred would cost more than parsing the head.
        return
    except Exception:
        failed(Failure())
        return
    Deferred.fromCoroutine(_resumed(answering, awaited)).addErrback(failed)


def _resumed(
    coroutine: Coroutine[Deferred[Any], Any, None], awaited: Deferred[Any]
) -> Generator[Deferred[Any], Any, None]:
    """The rest of a coroutine that has begun and awaits a Deferred."""
    while True:
        try:
            result = yield awaited
        except BaseException as error:
            step = partial(coroutine.throw, error)
        else:
            step = partial(coroutine.send, result)
        try:
            awaited = step()
        except StopIteration:
            return
