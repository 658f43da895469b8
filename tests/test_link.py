"""One connection for many operations: places, losses, time-outs, and whoever does not take what comes."""

from __future__ import annotations

import threading
from typing import Any

from twisted.internet.defer import CancelledError, Deferred

from fileexport.client.conversations import Ask
from fileexport.client.deferred.calling import Call
from fileexport.client.deferred.dialing import Place
from fileexport.errors import CorruptedResponse, OverloadedError, PeerGone
from fileexport.paths import RelPath
from fileexport.wire import messages as m
from tests.link_case import LinkCase
from tests.transfer_peer import code

ROW = m.Entry(RelPath(("a",)), "file", 1, 1)


class PlaceTests(LinkCase):
    """Who may begin, and when."""

    def test_order(self) -> None:
        """More operations than the server takes wait, and begin in the order in which they were asked for."""
        self.endpoint.streams = 2
        begun = [self.client.stat(f"/{number}") for number in range(6)]
        self.turn()
        for number in range(6):
            self.assertEqual(len(self.far.opened()), min(number + 2, 6))
            stream = self.far.opened()[number]
            self.far.say(m.Entries([ROW]), stream)
            self.far.say(m.End(), stream)
        self.assertEqual([one.path for one in map(self.successResultOf, begun)], [f"/{n}" for n in range(6)])
        asked = [str(one.path) for one in self.far.messages(m.Stat)]
        self.assertEqual(asked, [f"/{number}" for number in range(6)])

    def test_cancelled_in_the_queue(self) -> None:
        """What is cancelled while it waits is never begun."""
        self.endpoint.streams = 1
        first, second, third = (self.client.stat(f"/{number}") for number in range(3))
        self.turn()
        second.cancel()
        self.failureResultOf(second, CancelledError)
        self.far.say(m.Entries([ROW]), 1)
        self.far.say(m.End(), 1)
        self.turn()
        self.successResultOf(first)
        self.assertEqual([str(one.path) for one in self.far.messages(m.Stat)], ["/0", "/2"])
        self.waits(third)

    def test_cancelled_under_way(self) -> None:
        """What is cancelled under way is said so; its place is used again a little later."""
        self.endpoint.streams = 1
        first, second = self.client.stat("/0"), self.client.stat("/1")
        self.turn()
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.turn()
        self.assertEqual(len(self.far.messages(m.Reset)), 1)
        self.assertEqual(len(self.far.opened()), 1)
        self.clock.advance(0.5)
        self.turn()
        self.assertEqual(len(self.far.opened()), 2)
        self.waits(second)

    def test_refused_after_a_cancel(self) -> None:
        """Where the server still counts what was cancelled, what it refuses for that is asked again."""
        first, second = self.client.stat("/0"), self.client.stat("/1")
        self.turn()
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.turn()
        self.far.say(m.Reset(code(OverloadedError), "too many"), 2)
        self.waits(second)
        self.clock.advance(0.1)
        self.turn()
        self.assertEqual(len(self.far.opened()), 3)

    def test_refused_much_later(self) -> None:
        """Long after the last cancel, it is too much to do as well."""
        first, second = self.client.stat("/0"), self.client.stat("/1", timeout=1e6)
        self.turn()
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.turn()
        self.clock.advance(4)
        self.far.say(m.Reset(code(OverloadedError), "too many"), 2)
        self.failureResultOf(second, OverloadedError)

    def test_refused(self) -> None:
        """Otherwise a server that has too much to do is said to have."""
        asked = self.client.stat("/0")
        self.turn()
        self.far.say(m.Reset(code(OverloadedError), "too many"), 1)
        self.failureResultOf(asked, OverloadedError)


class LossTests(LinkCase):
    """Connections that end."""

    def test_collected(self) -> None:
        """What is collected is heard in one go, at the latest when the connection ends."""
        asked = self.client.stat("/")
        self.turn()
        self.far.link.collect()
        self.far.say(m.Entries([ROW]), 1)
        self.far.say(m.End(), 1)
        self.assertNoResult(asked)
        self.far.link.hear()
        self.successResultOf(asked)
        asked = self.client.stat("/")
        self.turn()
        self.far.link.collect()
        self.far.say(m.Entries([ROW]), 2)
        self.far.say(m.End(), 2)
        self.assertNoResult(asked)
        self.far.lose()
        self.successResultOf(asked)

    def test_lost(self) -> None:
        """All that is under way fails with ConnectionError; the next call connects again."""
        begun: list[Deferred[Any]] = [self.client.remove("/a"), self.client.make_directory("d", "/")]
        self.turn()
        self.far.lose()
        for one in begun:
            self.failureResultOf(one, PeerGone)
        again = self.client.stat("/")
        self.turn()
        self.assertEqual(len(self.endpoint.fars), 2)
        self.waits(again)

    def test_lost_while_idle(self) -> None:
        """What changes nothing is asked again where an idle connection turns out to be broken."""
        self.answer(self.client.stat("/"))
        looking, changing = self.client.stat("/"), self.client.remove("/a")
        self.far.lose()
        self.failureResultOf(changing, PeerGone)
        self.waits(looking)
        self.turn()
        self.assertEqual([str(one.path) for one in self.far.messages(m.Stat)], ["/"])

    def answer(self, asked: Deferred[Any]) -> None:
        """Answer the last operation."""
        self.turn()
        stream = self.far.opened()[-1]
        self.far.say(m.Entries([ROW]), stream)
        self.far.say(m.End(), stream)
        self.successResultOf(asked)

    def test_leaving(self) -> None:
        """A server that leaves ends what it has begun; all else goes to a new connection."""
        first, second = self.client.stat("/0"), self.client.remove("/1", recursive=True)
        self.turn()
        far = self.far
        far.session.last_stream = 1
        far.session.leave()
        far.turn()
        third = self.client.stat("/2")
        self.turn()
        self.assertEqual(len(self.endpoint.fars), 2)
        self.assertEqual([str(one.path) for one in self.far.messages(m.OnePath)], ["/1", "/2"])
        far.say(m.Entries([ROW]), 1)
        far.say(m.End(), 1)
        self.successResultOf(first)
        self.assertTrue(far.is_lost)
        self.waits(second)
        self.waits(third)

    def test_broken(self) -> None:
        """A server that breaks the protocol is told so, and all who waited get CorruptedResponse."""
        begun = [self.client.stat("/0"), self.client.stat("/1")]
        self.turn()
        self.far.link.dataReceived(b"\xff" * 12)
        for one in begun:
            self.failureResultOf(one, CorruptedResponse)
        self.far.turn()
        self.assertEqual(len(self.far.messages(m.GoAway)), 1)

    def test_close(self) -> None:
        """Closing cancels what is under way, and fires when the connection is gone."""
        asked = self.client.stat("/")
        self.turn()
        closed = self.client.close()
        self.failureResultOf(asked, CancelledError)
        self.waits(closed)
        self.turn()
        self.successResultOf(closed)
        self.assertEqual(len(self.far.messages(m.GoAway)), 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_close_without_an_answer(self) -> None:
        """A peer that does not close is left after two seconds."""
        self.client.stat("/").addErrback(lambda failure: failure.trap(CancelledError))
        self.turn()
        self.far.answers = False
        self.client.close()
        self.assertFalse(self.far.transport.aborted)
        self.clock.advance(2)
        self.assertTrue(self.far.transport.aborted)


class TimeOutTests(LinkCase):
    """Servers that do not answer."""

    def test_one_operation(self) -> None:
        """An answer that does not come is a TimeoutError of its operation alone."""
        slow, other = self.client.stat("/slow", timeout=5_000), self.client.stat("/other")
        self.turn()
        self.clock.advance(5)
        found = self.failureResultOf(slow, TimeoutError)
        self.assertEqual((found.value.filename, str(found.value.strerror)), ("/slow", "no answer within 5 s"))
        self.turn()
        self.far.say(m.Entries([ROW]), 2)
        self.far.say(m.End(), 2)
        self.successResultOf(other)
        self.clock.advance(60)
        self.assertFalse(self.far.is_lost)

    def test_waiting_for_others(self) -> None:
        """The wait for a place takes none of the time; each answer begins it anew."""
        self.endpoint.streams = 1
        first, second = self.client.jobs(timeout=1e6), self.client.stat("/", timeout=5_000)
        self.turn()
        self.clock.advance(4)
        self.far.say(m.Jobs([]), 1)
        self.failureResultOf(first, CorruptedResponse)
        self.clock.advance(0.5)
        self.turn()
        self.clock.advance(4)
        self.far.say(m.Entries([ROW]), 2)
        self.clock.advance(4)
        self.far.say(m.End(), 2)
        self.successResultOf(second)

    def test_dead_connection(self) -> None:
        """A server that says nothing at all is asked once, and then left by all."""
        slow, other = self.client.stat("/slow", timeout=5_000), self.client.remove("/other")
        self.turn()
        self.far.answers = False
        self.clock.advance(5)
        self.failureResultOf(slow, TimeoutError)
        self.clock.advance(9)
        self.waits(other)
        self.clock.advance(1)
        self.failureResultOf(other, PeerGone)
        self.assertTrue(self.far.transport.aborted)


class WritingTests(LinkCase):
    """A server that does not read."""

    def test_pings(self) -> None:
        """One that asks for signs of life and takes none does not fill the memory; it gets some later."""
        self.client.stat("/").addErrback(lambda failure: None)
        self.turn()
        far = self.far
        far.link.pauseProducing()
        for _ in range(5_000):
            far.session.send(m.Ping())
            far.link.dataReceived(far.session.take())
        self.assertLess(far.link.unsent + far.link.session.unsent, 1_000)
        self.assertEqual(far.transport.value(), b"")
        far.link.resumeProducing()
        self.assertGreater(len(far.transport.value()), 0)

    def test_said_while_full(self) -> None:
        """What is begun while the server does not read is said when it does."""
        self.client.stat("/0").addErrback(lambda failure: None)
        self.turn()
        self.far.link.pauseProducing()
        self.client.stat("/1").addErrback(lambda failure: None)
        self.turn()
        self.assertEqual(len(self.far.opened()), 1)
        self.far.link.resumeProducing()
        self.turn()
        self.assertEqual(len(self.far.opened()), 2)


class ThreadTests(LinkCase):
    """What may be said in any thread."""

    def test_said_elsewhere(self) -> None:
        """What another thread says leaves in the reactor's."""
        place = self.client._board.place(5)
        self.turn()
        found: Place = self.successResultOf(place)
        calls: list[Call] = []

        def begin() -> None:
            calls.append(Call(found, Ask(m.Stat(RelPath(("a",))))))

        thread = threading.Thread(target=begin)
        thread.start()
        thread.join()
        self.assertEqual(self.far.transport.value(), b"")
        self.turn()
        self.assertEqual(self.far.opened(), [1])
        calls[0].end()
        self.turn()
        self.assertEqual(len(self.far.messages(m.Reset)), 1)
