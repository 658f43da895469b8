"""File names where people and clients read them: made visible on a page, made safe in a header."""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import quote


def _spans(*pairs: tuple[int, int]) -> Iterable[int]:
    for first, last in pairs:
        yield from range(first, last + 1)


# A reader must see them: C1 controls; marks, embeddings, overrides and isolates that reorder text; spaces and
# joiners without width (not ZWJ and ZWNJ, which scripts and emoji need); line separators; bytes that are not
# UTF-8 (surrogates); annotations and noncharacters.
_UNSEEN = tuple(
    _spans(
        (0x80, 0x9F),
        (0xAD, 0xAD),
        (0x61C, 0x61C),
        (0x200B, 0x200B),
        (0x200E, 0x200F),
        (0x2028, 0x202E),
        (0x2060, 0x206F),
        (0xD800, 0xDFFF),
        (0xFEFF, 0xFEFF),
        (0xFFF9, 0xFFFB),
        (0xFFFE, 0xFFFF),
    )
)
_PICTURES = {code: chr(0x2400 + code) for code in range(0x20)} | {0x7F: "\u2421"}
_VISIBLE = dict.fromkeys(_UNSEEN, "\ufffd") | _PICTURES
_SAVED = dict.fromkeys((*_UNSEEN, *_PICTURES, *map(ord, "/\\")), "_")


def visible(text: str) -> str:
    """`text` for a reader: controls as their pictures (``␊``), what is unseen or reorders text as U+FFFD."""
    return text if text.isprintable() else text.translate(_VISIBLE)


def attachment(name: str) -> bytes:
    """The Content-Disposition of a download (RFC 6266, RFC 8187): one line of ASCII for every name.

    What would be unsafe in a name that a client saves (controls, slashes, bytes that are not UTF-8) becomes
    an underscore.
    """
    return disposition("attachment", name)


def disposition(kind: str, name: str) -> bytes:
    """A Content-Disposition of the given kind, as `attachment` says."""
    safe = name.translate(_SAVED)
    # Some clients decode a percent sign or a backslash in the quoted form: neither goes there.
    plain = re.sub(r'[^ -~]|["%]', "_", safe)
    value = f'{kind}; filename="{plain}"'
    if plain != safe:
        value += "; filename*=UTF-8''" + quote(safe, safe="!#$&+-.^_`|~")
    return value.encode("ascii")
