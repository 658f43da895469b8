"""Calls on real sockets: what is allowed arrives, what is refused never does."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.protocol import Factory
from twisted.trial.unittest import TestCase

from fileexport.addresses import read_address
from fileexport.callback_calls import Answer, Caller, is_local
from fileexport.callback_targets import Asker, Target, Targets
from fileexport.errors import CallbackRefusedError
from fileexport.pools import Pool
from tests.callback_receivers import Names, Receiver

LOCAL = Asker.at("127.0.0.1", True)
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nfin"
FIN = Answer(200, "OK", "fin")

# Twisted does not declare that its module is a reactor of every kind.
reactor: Any = global_reactor


class LoopbackTests(TestCase):
    """Real sockets."""

    def setUp(self) -> None:
        self.connections = 0
        self.port = reactor.listenTCP(0, Factory.forProtocol(self.receiver), interface="127.0.0.1")
        self.number = self.port.getHost().port
        self.addCleanup(self.port.stopListening)
        self.names = Names()

    def receiver(self) -> Receiver:
        """Count a connection."""
        self.connections += 1
        return Receiver(OK)

    def caller(self, *own: str) -> Caller:
        """A caller of a daemon that listens on these addresses with the listener's port."""
        listeners = [(read_address(text), self.number) for text in own]
        return Caller(reactor, Targets(lambda: listeners, (), is_local), self.names)

    async def try_all(self, caller: Caller, asker: Asker, *hosts: str) -> None:
        """Every way to reach these hosts is refused."""
        for host in hosts:
            for way in ("check", "call"):
                with self.assertRaises(CallbackRefusedError, msg=host):
                    target = Target.for_get(host, str(self.number), "/ping")
                    await (caller.check(target, asker) if way == "check" else caller.call(target, asker, {}))

    async def test_called(self) -> None:
        """A listener of this machine is called, by its address and by its name."""
        names = Pool(reactor, "names", 1, 1)
        names.start()
        self.addCleanup(names.stop)
        caller = Caller(reactor, Targets(lambda: (), (), is_local), names)
        for host in ("127.0.0.1", "localhost"):
            target = Target.for_get(host, str(self.number), "/ping?id=A1B2C3")
            await caller.check(target, LOCAL)
            self.assertEqual(await caller.call(target, LOCAL, {}), FIN)
        self.assertEqual(self.connections, 2)

    async def test_never_arrives(self) -> None:
        """What is refused never arrives at the listener that it names."""
        self.names.table["localhost"] = ["::1", "127.0.0.1"]
        proxied = Asker.at("127.0.0.1", False)
        await self.try_all(self.caller(), proxied, "127.0.0.1", "localhost", "::ffff:127.0.0.1")
        await self.try_all(self.caller("127.0.0.1"), LOCAL, "127.0.0.1", "localhost", "::ffff:127.0.0.1")
        await self.try_all(self.caller("0.0.0.0"), LOCAL, "127.0.0.1", "127.0.0.9", "localhost")
        await self.try_all(self.caller("::"), LOCAL, "127.0.0.1", "localhost")
        await self.try_all(self.caller(), LOCAL, "0.0.0.0", "0", "127.1", "2130706433", "0x7f.1", "::")
        self.assertEqual(self.connections, 0)

    async def test_half_forbidden(self) -> None:
        """A name with a good and a forbidden address never arrives, also where it was good at the request."""
        target = Target.for_get("two.example", str(self.number), "/ping")
        for addresses in (["127.0.0.1", "169.254.169.254"], ["169.254.169.254", "127.0.0.1"]):
            self.names.table["two.example"] = addresses
            await self.try_all(self.caller(), LOCAL, "two.example")
            self.names.table["two.example"] = ["127.0.0.1"]
            await self.caller().check(target, LOCAL)
            self.names.table["two.example"] = addresses
            with self.assertRaises(CallbackRefusedError):
                await self.caller().call(target, LOCAL, {})
        self.assertEqual(self.connections, 0)
        self.names.table["two.example"] = ["127.0.0.1"]
        self.assertEqual(await self.caller().call(target, LOCAL, {}), FIN)
        self.assertEqual(self.connections, 1)

    def test_is_local(self) -> None:
        """An address of this machine is told from one of another."""
        for text, expected in (
            ("127.0.0.1", True),
            ("127.1.2.3", True),
            ("192.0.2.1", False),
            ("2001:db8::1", False),
        ):
            self.assertEqual(is_local(ip_address(text)), expected, text)
