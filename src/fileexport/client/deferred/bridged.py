"""The verbs of `AsyncClient` that are the blocking client's own code in threads: transfers, trees, iterators.

What they take, return and raise is what the method of this name of `Client` says, or the function of
`fileexport`. Callbacks are called in the reactor's thread, and may return Deferreds; iterables that are given
are stepped through in a thread.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from functools import partial, update_wrapper
from os import PathLike
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from twisted.internet.defer import Deferred

from fileexport.client.blocking import Client
from fileexport.client.deferred.bridge import Bridge
from fileexport.client.deferred.iterating import Results, Stepping
from fileexport.client.syncing import synchronize_download, synchronize_upload
from fileexport.client.transfers import download_files, upload_files

if TYPE_CHECKING:
    from fileexport.sync.manifest import Manifest

P = ParamSpec("P")
T = TypeVar("T")
PathText = str | PathLike[str]

#: The parameters that are functions of the caller's.
_CALLBACKS = ("process_chunk", "process_file", "progress")


def _in_a_thread(
    verb: Callable[Concatenate[Client, P], T], *, checked: bool = False
) -> Callable[Concatenate[Bridged, P], Deferred[T]]:
    """A verb whose call runs in a thread. `checked`: its `progress` is where it learns that it shall end."""
    bind = inspect.signature(verb).bind

    def method(self: Bridged, /, *args: P.args, **named: P.kwargs) -> Deferred[T]:
        given: dict[str, Any] = bind(self._bridge.client, *args, **named).arguments
        for name in given.keys() & _CALLBACKS:
            given[name] = self._bridge.here(given[name])
        if checked:
            given["progress"] = given.get("progress") or self._bridge.check
        call: Callable[..., T] = verb
        return self._bridge.run(partial(call, **given))

    update_wrapper(method, verb)
    method.__doc__ = f"As `{verb.__qualname__}`."
    return method


def _by_steps(
    verb: Callable[Concatenate[Client, P], Iterator[T]], weigh: Callable[[T], int] = lambda item: 0
) -> Callable[Concatenate[Bridged, P], Results[T]]:
    """A verb whose iterator is stepped through in a thread; `weigh`: the bytes that an item keeps."""

    def method(self: Bridged, /, *args: P.args, **named: P.kwargs) -> Results[T]:
        make = partial(verb, self._bridge.client, *args, **named)
        return Results(self._bridge.reactor, Stepping(self._bridge, make, weigh))

    update_wrapper(method, verb)
    method.__doc__ = f"As `{verb.__qualname__}`: an async iterator, which is ahead of who reads it."
    return method


def _content_size(item: tuple[str, bytes | Exception]) -> int:
    content = item[1]
    return len(content) if isinstance(content, bytes) else 0


class Bridged:
    """Those verbs. A Deferred that is cancelled ends what it stands for, as what a callback raises does.

    It fails once its thread has let go, which looks between two steps whether it is wanted.
    """

    _bridge: Bridge

    upload_file = _in_a_thread(Client.upload_file)
    download_file = _in_a_thread(Client.download_file)
    upload_directory = _in_a_thread(Client.upload_directory)
    download_directory = _in_a_thread(Client.download_directory)
    upload_small = _by_steps(Client.upload_small)
    download_small = _by_steps(Client.download_small)
    make_directories = _in_a_thread(Client.make_directories)

    upload_files = _in_a_thread(upload_files)
    download_files = _in_a_thread(download_files)
    synchronize_upload = _in_a_thread(synchronize_upload, checked=True)
    synchronize_download = _in_a_thread(synchronize_download, checked=True)

    manifest = _in_a_thread(Client.manifest)
    hash_files = _by_steps(Client.hash_files)
    read_files = _by_steps(Client.read_files, _content_size)
    change = _by_steps(Client.change)
    upload_changes = _in_a_thread(Client.upload_changes)
    download_changes = _in_a_thread(Client.download_changes)
    copy = _in_a_thread(Client.copy)

    def begin_manifest(
        self, directory: PathText, timeout: float | None = None
    ) -> Deferred[Callable[[], Deferred[Manifest]]]:
        """As `Client.begin_manifest`; what it fires with returns a Deferred."""
        job = self._bridge.job()
        begun = self._bridge.run(partial(self._bridge.client.begin_manifest, directory, timeout), job)
        return begun.addCallback(lambda finish: partial(self._bridge.run, finish, job))

    @property
    def traffic(self) -> tuple[int, int]:
        """Bytes that were sent, and that came, before TLS."""
        return self._bridge.pool.traffic.both
