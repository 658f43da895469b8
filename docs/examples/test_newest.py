"""Tests of two functions that ask a server: python -m twisted.trial test_newest"""

import os

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from fileexport import AsyncClient, Client
from fileexport.testing import MemoryServer, serving


def newest(client: Client, directory: str) -> str:
    """The name of the entry that was changed last."""
    listing = client.list_files(directory)
    return max(listing, key=lambda name: listing[name][2])


async def newest_soon(client: AsyncClient, directory: str) -> str:
    """The same for a program that has a reactor."""
    listing = await client.list_files(directory)
    return max(listing, key=lambda name: listing[name][2])


class NewestTests(SynchronousTestCase):
    def test_on_loopback(self) -> None:
        """A real server, in a thread of its own, with a token that may only read."""
        with serving(may="read") as server, server.client() as client:
            for name, time in (("new", 2000), ("old", 1000)):
                (server.root / name).touch()
                os.utime(server.root / name, (time, time))
            self.assertEqual(newest(client, "/"), "new")

    def test_in_memory(self) -> None:
        """No socket and no thread: both sides speak when the test says so."""
        with MemoryServer() as server:
            (server.root / "new").touch()
            found = Deferred.fromCoroutine(newest_soon(server.client(), "/"))
            server.flush()
            self.assertEqual(self.successResultOf(found), "new")

    def test_no_answer(self) -> None:
        """Time is the test's: a minute passes at once."""
        with MemoryServer() as server:
            found = Deferred.fromCoroutine(newest_soon(server.client(), "/"))
            server.reactor.advance(61)
            self.failureResultOf(found, TimeoutError)
