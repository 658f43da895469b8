"""What reads the wire, under a coverage-guided fuzzer: `python -m tests.proof.fuzz_wire TARGET RUNS CORPUS`.

Runs in a process of its own, which ends with 0 where nothing but typed errors came out. The fuzzer prints the
input that did otherwise.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import atheris  # type: ignore[import-untyped]  # it comes without annotations

with atheris.instrument_imports(include=["fileexport.wire", "fileexport.paths"]):
    from fileexport.errors import BadRequestError, CorruptedResponse, FileNameError, OverloadedError
    from fileexport.paths import MAX_DEPTH, MAX_PATH, RelPath
    from fileexport.wire import messages as m
    from fileexport.wire.frames import (
        BEFORE_AUTHENTICATION,
        HEADER_SIZE,
        LARGEST,
        PREFACE,
        RULES,
        Data,
        Frame,
        FrameReader,
        FrameType,
        Place,
        frame,
    )
    from fileexport.wire.session import LocalProtocolError, Received, Session, State
    from fileexport.wire.streams import Role
    from fileexport.wire.zstd import MAX_CONTENT, Grower, Shrinker

from tests.vectors import HERE

_KINDS = tuple(FrameType)
_SECRET = bytes(32)
#: Bytes of one input.
_LONGEST = 4096


def frames(data: bytes) -> None:
    """Bytes in any fragmentation: frames within the limits, or `CorruptedResponse`."""
    step, behind = 1 + (data[0] if data else 0), data[1:]
    limits = LARGEST if step % 2 else BEFORE_AUTHENTICATION
    reader = FrameReader(limits)
    whole = PREFACE + behind if step % 3 else behind
    with suppress(CorruptedResponse):
        for at in range(0, len(whole), step):
            reader.feed(whole[at : at + step])
            while (event := reader.next_event()) is not None:
                if isinstance(event, Data):
                    assert 0 < len(event.piece) <= event.size <= limits.data
                else:
                    assert len(event.payload) <= limits.control
                    assert RULES[event.type].place.admits(event.stream)


def messages(data: bytes) -> None:
    """A payload of any type: a message that is said again in the same way, or a typed error."""
    if not data:
        return
    kind = _KINDS[data[0] % len(_KINDS)]
    if kind is FrameType.DATA:
        return
    stream = 0 if RULES[kind].place is Place.CONNECTION else 1
    try:
        found = m.decode(Frame(kind, stream, memoryview(data[1:])))
    except CorruptedResponse:
        return
    except BadRequestError:
        assert kind is FrameType.OPEN
        return
    again = m.encode(found, stream)
    assert m.decode(Frame(kind, stream, memoryview(again)[HEADER_SIZE:])) == found
    if isinstance(found, m.ManifestPart):
        for folder in found.folders:
            _lines(folder)


def folders(data: bytes) -> None:
    """Columns of a folder: lines that say it again, or `CorruptedResponse`."""
    provider = atheris.FuzzedDataProvider(data)
    count = provider.ConsumeIntInRange(0, 9)
    sizes, times, modes = (provider.ConsumeIntListInRange(count, 0, most) for most in (2, 2**62, 0o777))
    targets = [provider.ConsumeBytes(5) or b"x" for _ in range(provider.ConsumeIntInRange(0, count))]
    kinds = bytes(b"fdlo?"[number] for number in provider.ConsumeIntListInRange(count, 0, 4))
    names = provider.ConsumeBytes(provider.remaining_bytes())
    _lines(m.Folder(_PATH, names, kinds, sizes, times, modes, targets))


def _lines(folder: m.Folder) -> None:
    with suppress(CorruptedResponse):
        lines = m.folder_rows(folder)
        for line in lines:
            RelPath((line[0],))
        said = folder.code, folder.message, folder.omitted
        again = m.folder_of(folder.path, lines, code=said[0], message=said[1], omitted=said[2])
        assert again == folder


def paths(data: bytes) -> None:
    """Bytes and text as a path: names within the limits and never a way out, or `FileNameError`."""
    text = data.decode("utf-8", "surrogateescape")
    for read in (
        lambda: RelPath.from_url(data),
        lambda: RelPath.parse(text),
        lambda: RelPath(text.split("/")),
    ):
        with suppress(FileNameError):
            path = read()
            assert not {"", ".", ".."} & set(path.parts)
            assert not any("/" in name or "\0" in name for name in path.parts)
            assert len(path.parts) <= MAX_DEPTH
            assert len("/".join(path.parts).encode("utf-8", "surrogateescape")) <= MAX_PATH


def grower(data: bytes) -> None:
    """Compressed content in pieces: at most 1 MiB of content, or `CorruptedResponse`."""
    reader, step = Grower(), 1 + (data[0] if data else 0) * 16
    whole = data[1:]
    with suppress(CorruptedResponse):
        for at in range(0, len(whole), step):
            piece = memoryview(whole[at : at + step])
            content = reader.feed(Data(1, len(whole), len(whole) - at - len(piece), True, piece))
            assert content is None or 0 < len(content) <= MAX_CONTENT


def server(data: bytes) -> None:
    """A stranger's bytes, and a client's frames of any kind at any time, for the server's session."""
    _session(Role.SERVER, data)


def client(data: bytes) -> None:
    """The same for the client's session, with some operations begun."""
    _session(Role.CLIENT, data)


def _session(role: Role, data: bytes) -> None:
    provider = atheris.FuzzedDataProvider(data)
    stage = provider.ConsumeIntInRange(0, 5)
    ours = _talking(role, stage)
    if ours.state is State.OPEN and role is Role.CLIENT:
        for operation in _OPERATIONS:
            ours.open(operation)
    ours.take()
    try:
        for piece in _spoken(provider):
            ours.receive(piece)
            while (event := ours.next_event()) is not None:
                _answered(ours, event, provider)
    except CorruptedResponse:
        assert ours.state is State.BROKEN
        with suppress(CorruptedResponse):
            ours.next_event()
            raise AssertionError("a broken session goes on") from None


_PATH = RelPath(("a",))
_OPERATIONS: tuple[m.Open, ...] = (
    m.Read(_PATH),
    m.Write(_PATH, 10, 0, source=b"x"),
    m.WriteFiles(_PATH),
    m.List(_PATH),
    m.ReadFiles([_PATH]),
    m.Manifest(_PATH),
    m.GetChunks(_PATH, 512),
    m.Change([m.MakeStep(_PATH)]),
    m.Write(_PATH, 10, 0, bases=[m.Base(_PATH)]),
)


def _talking(role: Role, stage: int) -> Session:
    """Our session, after as many steps of the way in; 5 is all of them."""
    one, other = Session(Role.CLIENT), Session(Role.SERVER)
    steps: tuple[tuple[Session, Session, m.Message | None], ...] = (
        (one, other, None),
        (other, one, None),
        (one, other, m.Auth(bytes(8), _SECRET)),
        (other, one, m.Challenge(_SECRET)),
        (one, other, m.Proof(_SECRET)),
        (other, one, m.Welcome(_SECRET, ["read"])),
    )
    for speaker, listener, message in steps[: stage and stage + 1]:
        if message is not None:
            speaker.send(message)
        listener.receive(speaker.take())
        while listener.next_event() is not None:
            pass
    return one if role is Role.CLIENT else other


def _spoken(provider: atheris.FuzzedDataProvider) -> Iterator[bytes]:
    """What the other side says: frames with any payload, and bytes that are none."""
    while provider.remaining_bytes():
        choice = provider.ConsumeIntInRange(0, 15)
        if choice == 0:
            yield PREFACE
        elif choice == 1:
            yield provider.ConsumeBytes(provider.ConsumeIntInRange(1, 40))
        else:
            kind = _KINDS[provider.ConsumeIntInRange(0, len(_KINDS) - 1)]
            place = RULES[kind].place
            stream = 0 if place is Place.CONNECTION else provider.ConsumeIntInRange(0, 12)
            payload = provider.ConsumeBytes(provider.ConsumeIntInRange(0, 200))
            with suppress(ValueError):
                yield frame(kind, stream, payload, flags=RULES[kind].flags if choice == 2 else 0)


def _answered(ours: Session, event: object, provider: atheris.FuzzedDataProvider) -> None:
    """Do what a user may do after an event; what is not our turn is refused and changes nothing."""
    if isinstance(event, Data):
        ours.consumed(event.stream, len(event.piece))
        return
    assert isinstance(event, Received)
    replies: tuple[m.Message, ...] = (
        m.Ready(),
        m.Content(1, 0, b""),
        m.Entries([]),
        m.Outcome(),
        m.ManifestPart([m.Folder(_PATH)]),
        m.Chunks(b"", []),
        m.Copy([m.CopyRange(0, 0, 1)]),
        m.End(),
        m.Reset(),
    )
    with suppress(LocalProtocolError, OverloadedError, ValueError):
        choice = provider.ConsumeIntInRange(0, len(replies) + 2)
        if event.size:
            ours.consumed(event.stream, event.size)
        if choice < len(replies):
            ours.send(replies[choice], event.stream)
        elif choice == len(replies):
            ours.data_header(event.stream, 1)
            # Its content is not said: nobody reads what the outbox holds.
        elif choice == len(replies) + 1:
            ours.reset(event.stream)
        else:
            ours.leave()
    assert ours.credit(event.stream) >= 0


TARGETS: dict[str, Callable[[bytes], None]] = {
    one.__name__: one for one in (frames, messages, folders, paths, grower, server, client)
}


def _seeds(target: str) -> list[bytes]:
    """Inputs that are valid, to begin with."""
    said, raw = (
        [bytes.fromhex(row["hex"]) for row in json.loads((HERE / f"{name}.json").read_text("utf-8"))]
        for name in ("messages", "frames")
    )
    if target == "frames":
        return [b"\0" + one for one in said] + [b"\1" + one for one in raw]
    if target == "messages":
        return [bytes([_KINDS.index(FrameType(one[4]))]) + one[HEADER_SIZE:] for one in said]
    if target == "grower":
        packed = (
            Shrinker().pack(content) for content in (b"a" * 100, bytes(range(200)) * 9, bytes(MAX_CONTENT))
        )
        return [b"\xff" + one for one in packed if one is not None]
    if target == "folders":
        return [bytes(20) + b"a\0b\xff\0c", b"\1" * 20 + b"a"]
    if target == "paths":
        return [b"/a/b%2e", b"a//b", b"%2e%2e/..", b".fileexport/x", b"\xff/" * 64]
    return [bytes([5, number]) + one for number, one in enumerate(said)]


def main(target: str, runs: str, corpus: str) -> None:
    """Fuzz one target; never returns."""
    for number, seed in enumerate(_seeds(target)):
        Path(corpus, f"seed-{number}").write_bytes(seed)
    words = [
        sys.argv[0],
        f"-runs={runs}",
        f"-max_len={_LONGEST}",
        "-seed=7",
        "-timeout=20",
        "-rss_limit_mb=1024",
    ]
    atheris.Setup([*words, f"-artifact_prefix={corpus}/", "-print_final_stats=1", corpus], TARGETS[target])
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])
