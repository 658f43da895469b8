"""What a browser gets of our own: how pages are written, their addresses, error pages, static files.

The pages of directories are `directory`'s. Everything works without JavaScript, and for every name that a
file system can hold: a name is a link through its percent-encoded bytes, and text only after whatever could
deceive a reader was made visible.
"""

from __future__ import annotations

import errno
import functools
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from http import HTTPStatus
from typing import TYPE_CHECKING, NamedTuple

from fileexport.paths import RelPath
from fileexport.web.names import visible

if TYPE_CHECKING:
    from jinja2 import Environment

#: Reaches every exported entry, also one whose name is a route of the daemon's own.
FILES_ROUTE = "/-/files"
STATIC_ROUTE = "/-/static"

_FRAME = b"form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
# The referrer stays with our own origin: with none at all a browser would send `Origin: null` from our own
# forms, and a changing request would be refused.
_REFERRER = (b"Referrer-Policy", b"same-origin")

#: The security headers of our own pages without scripts (CSP level 3).
PAGE_POLICY: tuple[tuple[bytes, bytes], ...] = (
    (
        b"Content-Security-Policy",
        b"default-src 'none'; style-src 'self'; img-src 'self'; " + _FRAME,
    ),
    _REFERRER,
)


def scripted_policy(nonce: str) -> tuple[tuple[bytes, bytes], ...]:
    """The security headers of a page with our own script, which has this nonce; a new one for every answer.

    Not ``'self'`` for scripts: an exported file must never count as one of ours.
    """
    policy = (
        b"default-src 'none'; script-src 'nonce-%s'; style-src 'self'; img-src 'self'; media-src 'self'; "
        b"frame-src 'self'; connect-src 'self'; %s; require-trusted-types-for 'script'"
    )
    return (b"Content-Security-Policy", policy % (nonce.encode("ascii"), _FRAME)), _REFERRER


def error_page(status: int, sentence: str, *, prefix: str = "") -> bytes:
    """Write the page of an HTTP error as UTF-8 HTML: the status, one sentence, a link to the root."""
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = "Error"
    return render("error.html", prefix, status=status, phrase=phrase, sentence=visible(sentence))


def render(template: str, prefix: str, **values: object) -> bytes:
    """Write a template as UTF-8 HTML; `prefix` and ``static`` are there for all. Raises `OSError`.

    Values are escaped. What could deceive a reader is made `visible` by the caller.
    """
    static = f"{prefix}{STATIC_ROUTE}/{_version()}"
    values = {"home": f"{prefix}/", "parent": "", "crumbs": (), **values}
    text = _templates().get_template(template).render(prefix=prefix, static=static, **values)
    return text.encode("utf-8", "replace")


@functools.cache
def _templates() -> Environment:
    # Imported late: a daemon that serves no page never pays for it.
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("fileexport.web"),
        autoescape=True,
        auto_reload=False,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


@dataclass(frozen=True, slots=True)
class Addresses:
    """How paths become addresses on this server: absolute, however a page was reached.

    `prefix` is what a reverse proxy puts before our paths, without a slash at its end. What lies at or below
    a name of `own_names` in the root (our own routes) goes through `FILES_ROUTE`. A shared directory, `top`,
    is reached through the `base` of its share, and nothing above it is.
    """

    prefix: str = ""
    own_names: frozenset[str] = frozenset()
    base: str = ""
    top: RelPath = RelPath()

    def start(self, first: str = "") -> str:
        """What stands before the paths that begin with this name."""
        if self.base or first not in self.own_names:
            return self.prefix + self.base
        return self.prefix + FILES_ROUTE

    def below(self, path: RelPath) -> RelPath:
        """A path as seen from the top. Raises `FileNotFoundError` for one that is not below it."""
        below = path.beneath(self.top)
        if below is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        return below

    def entry(self, path: RelPath) -> str:
        """The address of an entry, without a slash after a directory's name."""
        below = self.below(path)
        return self.start(below.parts[0] if below else "") + below.url()

    def directory(self, path: RelPath) -> str:
        """The address of a directory; it ends with a slash."""
        return self.entry(path) + ("/" if path != self.top else "")


def url_of(path: RelPath, prefix: str = "", own_names: frozenset[str] = frozenset()) -> str:
    """The address of an exported entry, as `Addresses.entry` says."""
    return Addresses(prefix, own_names).entry(path)


class StaticFile(NamedTuple):
    """A file of our own pages, whole, with a strong ETag of its content."""

    content_type: bytes
    data: bytes
    etag: bytes


_STATIC_TYPES = {
    "css": b"text/css; charset=utf-8",
    "js": b"text/javascript; charset=utf-8",
    "svg": b"image/svg+xml",
    "ico": b"image/vnd.microsoft.icon",
    "txt": b"text/plain; charset=utf-8",
}
#: An address with a version in it never means anything else.
_KEPT = (b"Cache-Control", b"public, max-age=31536000, immutable")
_VERSION = re.compile(r"[0-9a-f]{12}")
_ASKED_AGAIN = (b"Cache-Control", b"no-cache")


class _Static(Mapping[str, StaticFile]):
    """Our static files by name, all read from the package when one is first asked for."""

    def __getitem__(self, name: str) -> StaticFile:
        return _load_static()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(_load_static())

    def __len__(self) -> int:
        return len(_load_static())


STATIC: Mapping[str, StaticFile] = _Static()


@functools.cache
def _load_static() -> dict[str, StaticFile]:
    # Imported late, as Jinja2 is: a start does not wait for it.
    from importlib import resources

    found = {}
    for file in (resources.files("fileexport.web") / "static").iterdir():
        kind = _STATIC_TYPES.get(file.name.rpartition(".")[2])
        if kind is not None:
            data = file.read_bytes()
            tag = sha256(data).hexdigest()[:32].encode("ascii")
            found[file.name] = StaticFile(kind, data, b'"%s"' % tag)
    return dict(sorted(found.items()))


@functools.cache
def _version() -> str:
    """One for all files: modules and style sheets fit together, or not at all."""
    tags = b"".join(name.encode("ascii") + file.etag for name, file in STATIC.items())
    return sha256(tags).hexdigest()[:12]


def static_file(path: str) -> tuple[StaticFile, tuple[tuple[bytes, bytes], ...]] | None:
    """What `STATIC_ROUTE` has under a path, ``style.css`` or ``VERSION/style.css``, and its header fields.

    None for what is not there; a version that is not ours is answered with the file of ours, not to be kept.
    """
    version, slash, name = path.rpartition("/")
    file = STATIC.get(name)
    if file is None or (slash and _VERSION.fullmatch(version) is None):
        return None
    return file, (_KEPT if version == _version() else _ASKED_AGAIN, *PAGE_POLICY)
