"""What both sides say before the first stream: what they take, and which token the client has."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from fileexport.wire.bounds import Credit, Digest, Message, Text
from fileexport.wire.frames import LARGEST, FrameType

VERSION = 1
MAX_FEATURES = 16
#: Characters of a feature's name.
MAX_FEATURE = 32
KEY_ID_SIZE = 8
#: Features that have a name. Others may be announced, and are ignored.
FEATURES: dict[str, str] = {"zstd": "DATA frames may be compressed"}

KeyId = Annotated[bytes, Meta(min_length=KEY_ID_SIZE, max_length=KEY_ID_SIZE)]
Feature = Annotated[str, Meta(min_length=1, max_length=MAX_FEATURE)]


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """What the sender of HELLO is ready to take."""

    control: Annotated[int, Meta(ge=1 << 10, le=LARGEST.control)]
    data: Annotated[int, Meta(ge=512, le=LARGEST.data)]
    streams: Annotated[int, Meta(ge=1, le=65535)]
    stream_credit: Credit
    connection_credit: Credit


class Hello(Message, frozen=True):
    """The first message of both sides: version, named features, limits."""

    frame = FrameType.HELLO
    version: Annotated[int, Meta(ge=1, le=65535)]
    limits: Offer
    features: Annotated[list[Feature], Meta(max_length=MAX_FEATURES)] = []


class Auth(Message, frozen=True):
    """The client begins to prove a token: which one, its nonce, what the proof is bound to."""

    frame = FrameType.AUTH
    id: KeyId
    nonce: Digest
    binding: Literal["none", "tls-server-end-point"] = "none"


class Challenge(Message, frozen=True):
    """The server's nonce."""

    frame = FrameType.CHALLENGE
    nonce: Digest


class Proof(Message, frozen=True):
    """The client's proof that it has the token."""

    frame = FrameType.PROOF
    proof: Digest


class Welcome(Message, frozen=True):
    """The client is let in; the server's proof that it knew the token."""

    frame = FrameType.WELCOME
    proof: Digest
    rights: Annotated[list[Feature], Meta(max_length=MAX_FEATURES)]


class Refused(Message, frozen=True):
    """The proof was wrong; so many tries are left on this connection."""

    frame = FrameType.REFUSED
    tries_left: Annotated[int, Meta(ge=0, le=255)]
    message: Text = ""
