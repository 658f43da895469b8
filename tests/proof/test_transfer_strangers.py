"""Strangers at the door of the transfer protocol: garbage, silence, lengths above all, a byte now and then.

They are gone in time, cost next to nothing, and a real client hardly notices.
"""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import cycle, islice
from threading import Event, Thread
from typing import Literal, NamedTuple

from fileexport import Client
from fileexport.keys import generate_keys
from fileexport.wire import messages as m
from fileexport.wire.frames import PREFACE, FrameType, frame
from fileexport.wire.session import DEFAULT_OFFER
from tests.proof.asking import any_certificate
from tests.proof.commands import eventually
from tests.proof.counts import SOAK
from tests.proof.daemon import PATIENCE
from tests.proof.process import MIB, descriptors, forget_peak, peak, resting, say
from tests.proof.transfer_case import TransferCase

#: Strangers at once, how often, and how many of them one address may have.
STRANGERS = 200
ROUNDS = 5 if SOAK else 1
EACH = 25
#: Promised: seconds for an answer, seconds until a place is free again, bytes of memory.
ANSWER, FREE, MEMORY = 2.0, 15.0, 32 * MIB

HELLO = PREFACE + m.encode(m.Hello(m.VERSION, DEFAULT_OFFER))
AUTH = m.encode(m.Auth(bytes(8), bytes(32)))
PROOF = m.encode(m.Proof(bytes(32)))
#: The first bytes of one of 512.
CLIENT_HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(300)


def _header(size: int, kind: int, flags: int = 0, zero: int = 0, stream: int = 0) -> bytes:
    return struct.pack(">IBBHI", size, kind, flags, zero, stream)


class Stranger(NamedTuple):
    """What somebody sends, at once or a byte each second; by TLS, or bare to a port where TLS is spoken."""

    said: bytes
    slowly: bool = False
    port: Literal["plain", "tls"] = "plain"
    shakes_hands: bool = False


#: What a stranger sends at once, or little by little; then it waits.
KINDS: dict[str, Stranger] = {
    "nothing": Stranger(b""),
    "garbage": Stranger(random.Random(3).randbytes(64 << 10)),
    "HTTP": Stranger(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    "TLS": Stranger(CLIENT_HELLO),
    "half a preface": Stranger(PREFACE[:4]),
    "the preface": Stranger(PREFACE),
    "half a header": Stranger(PREFACE + b"\0\0\0"),
    "a frame of 4 GiB": Stranger(PREFACE + _header(2**32 - 1, FrameType.HELLO)),
    "a frame to skip of 4 GiB": Stranger(HELLO + _header(2**32 - 1, 0xFF)),
    "a frame of a byte too much": Stranger(PREFACE + _header(1025, FrameType.HELLO) + bytes(1025)),
    "a HELLO that does not come": Stranger(PREFACE + _header(1024, FrameType.HELLO) + bytes(1000)),
    "HELLO": Stranger(HELLO),
    "HELLO without limits": Stranger(PREFACE + frame(FrameType.HELLO, 0, b"\x81\xa6limits\xc0")),
    "deep MessagePack": Stranger(PREFACE + frame(FrameType.HELLO, 0, b"\x91" * 1000)),
    "AUTH of an unknown token": Stranger(HELLO + AUTH),
    "a wrong PROOF": Stranger(HELLO + AUTH + PROOF),
    "AUTH again and again": Stranger(HELLO + AUTH * 50),
    "OPEN before the proof": Stranger(HELLO + m.encode(m.ListJobs(), 1)),
    "DATA before the proof": Stranger(HELLO + _header(1 << 20, FrameType.DATA, stream=1) + bytes(64 << 10)),
    "PING before the proof": Stranger(HELLO + m.encode(m.Ping()) * 1000),
    "much to be skipped": Stranger(HELLO + (_header(1000, 0x80) + bytes(1000)) * 500),
    "a byte now and then": Stranger(HELLO + AUTH, slowly=True),
    "a byte now and then, of garbage": Stranger(bytes(100), slowly=True),
    "a byte now and then, to be skipped": Stranger(HELLO + _header(1000, 0x80) + bytes(1000), slowly=True),
    "silence where TLS is spoken": Stranger(b"", port="tls"),
    "no TLS where TLS is spoken": Stranger(HELLO, port="tls"),
    "half a ClientHello": Stranger(CLIENT_HELLO, port="tls"),
    "a ClientHello now and then": Stranger(CLIENT_HELLO, slowly=True, port="tls"),
    "silence inside TLS": Stranger(b"", port="tls", shakes_hands=True),
    "garbage inside TLS": Stranger(bytes(range(256)) * 64, port="tls", shakes_hands=True),
    "HELLO inside TLS": Stranger(HELLO, port="tls", shakes_hands=True),
}


class StrangersTests(TransferCase):
    """A daemon with a real client, and all of them."""

    def setUp(self) -> None:
        super().setUp()
        for number in range(100):
            (self.root / f"file-{number}").write_bytes(b"x" * number)
        key = self.write("server.pem", generate_keys()[1].encode(), 0o600)
        tls = f"ssl:0:privateKey={key}:certKey={key}:interface=127.0.0.1"
        self.guarded = self.daemon("--transfer", tls)
        self.port = int(self.guarded.expect(r"transfer on tcp 127\.0\.0\.1:(\d+)")[1])
        self.tls_port = int(self.guarded.expect(r"transfer on tls 127\.0\.0\.1:(\d+)")[1])
        self.stack = ExitStack()
        self.addCleanup(self.stack.close)
        self.over = Event()
        self.addCleanup(self.over.set)

    def stranger(self, address: str, kind: Stranger) -> socket.socket:
        """A connection of this kind, which stays."""
        end = self.stack.enter_context(socket.socket())
        end.settimeout(PATIENCE)
        end.bind((address, 0))
        end.connect(("127.0.0.1", self.port if kind.port == "plain" else self.tls_port))
        if kind.shakes_hands:
            end = self.stack.enter_context(any_certificate().wrap_socket(end))
        if kind.slowly:
            Thread(target=self._trickle, args=(end, kind.said), daemon=True).start()
        else:
            # It may be closed before all has left.
            with contextlib.suppress(OSError):
                end.sendall(kind.said)
        return end

    def _trickle(self, end: socket.socket, data: bytes) -> None:
        with contextlib.suppress(OSError):
            for byte in data:
                end.sendall(bytes([byte]))
                if self.over.wait(1.0):
                    return

    def addresses(self) -> Iterator[str]:
        """Addresses of this machine, each as often as one of them may be there."""
        for number in cycle(range(2, 2 + STRANGERS // EACH)):
            yield f"127.0.0.{number}"

    def test_all(self) -> None:
        """200 at once: a client's answers stay quick, all places are free in time, memory does not grow."""
        with self.client(self.port) as client:
            client.list_files("/")
            before = resting(self.guarded.pid)
            forget_peak(self.guarded.pid)
            memory = peak(self.guarded.pid)
            with ThreadPoolExecutor(2) as pool:
                standing = pool.submit(self.ask_until_over, lambda: client)
                coming = pool.submit(self.ask_until_over, self.new_client)
                try:
                    took = max(self.visit(before + 10) for _ in range(ROUNDS))
                finally:
                    self.over.set()
                slowest = max(standing.result(PATIENCE), coming.result(PATIENCE))
            grown = peak(self.guarded.pid) - memory
        say(
            f"strangers: {STRANGERS} of {len(KINDS)} kinds at once, {ROUNDS} times: gone {took:.1f} s after "
            f"the last came; slowest answer {slowest * 1000:.0f} ms; memory +{grown / MIB:.1f} MiB"
        )
        self.assertLess(slowest, ANSWER)
        self.assertLess(took, FREE)
        self.assertLess(grown, MEMORY)
        self.assertNotIn("Traceback", self.guarded.output)

    def visit(self, most: int) -> float:
        """All kinds come at once and stay; seconds until no more than so many descriptors are open."""
        wanted = zip(self.addresses(), cycle(KINDS.values()), strict=False)
        for address, kind in islice(wanted, STRANGERS):
            self.stranger(address, kind)
        begun = time.monotonic()
        eventually("the strangers are gone", lambda: descriptors(self.guarded.pid) <= most)
        took = time.monotonic() - begun
        self.stack.pop_all().close()
        return took

    def new_client(self) -> Client:
        """A client that has to come in first: from an address that strangers hold places of."""
        return self.client(self.port)

    def ask_until_over(self, make: Callable[[], Client]) -> float:
        """Ask again and again; the slowest answer in seconds."""
        slowest = 0.0
        while not self.over.is_set():
            begun = time.monotonic()
            client = make()
            self.assertEqual(len(client.list_files("/", timeout=PATIENCE * 1000)), 100)
            slowest = max(slowest, time.monotonic() - begun)
            if make == self.new_client:
                client.close()
        return slowest

    def test_one_address(self) -> None:
        """Strangers of one address push each other out, and not those of others, nor a client beside them."""
        other = self.stranger("127.0.0.9", Stranger(HELLO))
        ends = [self.stranger("127.0.0.1", Stranger(HELLO)) for _ in range(STRANGERS)]
        begun = time.monotonic()
        with self.client(self.port) as client:
            self.assertEqual(len(client.list_files("/")), 100)
        self.assertLess(time.monotonic() - begun, ANSWER)
        self.assertLess(sum(map(_is_open, ends)), 40)
        self.assertTrue(_is_open(other))


def _is_open(end: socket.socket) -> bool:
    """Whether the other side has left the connection open; takes what it has said."""
    end.settimeout(0.01)
    try:
        while end.recv(1 << 16):
            pass
    except TimeoutError:
        return True
    except OSError:
        pass
    return False
