"""What a browser gets: directory pages, error pages, our static files, and how a file is served inline.

Everything here works without JavaScript, and for every name that a file system can hold: a name is a link
through its percent-encoded bytes, and text only after whatever could deceive a reader was made visible.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date
from hashlib import sha256
from http import HTTPStatus
from importlib import resources
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote

from fileexport.paths import MAX_DEPTH, MAX_PATH, RelPath, quote_name

if TYPE_CHECKING:
    from jinja2 import Environment

#: Reaches every exported entry, also one whose name is a route of the daemon's own.
FILES_ROUTE = "/-/files"
STATIC_ROUTE = "/-/static"

_NOSNIFF = (b"X-Content-Type-Options", b"nosniff")

#: The security headers of our own pages (CSP level 3). The referrer stays with our own origin: with none at
#: all a browser would send `Origin: null` from our own forms, and a changing request would be refused.
PAGE_POLICY: tuple[tuple[bytes, bytes], ...] = (
    (
        b"Content-Security-Policy",
        b"default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; "
        b"frame-ancestors 'none'",
    ),
    _NOSNIFF,
    (b"Referrer-Policy", b"same-origin"),
)

#: The headers of a file that a browser might run: sandboxed it has an origin of its own, no scripts and no
#: forms, and it loads nothing from anywhere, so that opening it cannot ask this server for anything.
SANDBOX_POLICY: tuple[tuple[bytes, bytes], ...] = (
    (b"Content-Security-Policy", b"sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:"),
    _NOSNIFF,
)

#: The headers of a file that is only looked at. No sandbox: Chromium's PDF viewer and players need none.
PASSIVE_POLICY: tuple[tuple[bytes, bytes], ...] = (_NOSNIFF,)


class Row(NamedTuple):
    """One entry of a directory: its name with surrogate escapes, bytes, seconds since 1970.

    `kind` is ``file``, ``directory``, ``link`` or ``other``; the name of a nested ``--dir`` holds slashes.
    """

    name: str
    kind: str
    size: int
    mtime: float


class _Entry(NamedTuple):
    """A row as the template writes it."""

    href: str
    label: str
    is_directory: bool
    size: str
    exact: str
    modified: str


def directory_page(
    where: RelPath,
    rows: Sequence[Row],
    *,
    prefix: str = "",
    notes: Sequence[str] = (),
    own_names: frozenset[str] = frozenset(),
) -> bytes:
    """Write the page of a directory as UTF-8 HTML: directories first, then by name.

    `prefix` is what a reverse proxy puts before our paths, without a slash at its end. What lies at or below
    a name of `own_names` in the root (our own routes) is reached through `FILES_ROUTE`. `notes` are
    sentences for the reader, shown above the entries.
    """
    links = _Links(where, prefix, own_names)
    ordered = sorted(rows, key=lambda row: (row.kind != "directory", row.name))
    total = sum(row.size for row in rows if row.kind == "file")
    return _render(
        "directory.html",
        prefix,
        path=visible(str(where) + "/" if where else "/"),
        name=visible(where.name),
        parent=links.directory(where.parent) if where else "",
        crumbs=[
            (visible(name), links.directory(RelPath(where.parts[: depth + 1])))
            for depth, name in enumerate(where.parent)
        ],
        notes=[visible(note) for note in notes],
        entries=[_entry(row, links) for row in ordered],
        count="1 entry" if len(rows) == 1 else f"{len(rows):,} entries",
        total=human_size(total),
        exact=_exact(total),
    )


def error_page(status: int, sentence: str, *, prefix: str = "") -> bytes:
    """Write the page of an HTTP error as UTF-8 HTML: the status, one sentence, a link to the root."""
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = "Error"
    return _render("error.html", prefix, status=status, phrase=phrase, sentence=visible(sentence))


def _render(template: str, prefix: str, **values: object) -> bytes:
    text = _templates().get_template(template).render(prefix=prefix, static=prefix + STATIC_ROUTE, **values)
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


def url_of(path: RelPath, prefix: str = "", own_names: frozenset[str] = frozenset()) -> str:
    """The address of an exported entry on this server, without a slash after a directory's name.

    What lies at or below a name of `own_names` in the root goes through `FILES_ROUTE`.
    """
    own = bool(path) and path.parts[0] in own_names
    return f"{prefix}{FILES_ROUTE if own else ''}{path.url()}"


class _Links:
    """The links of one page: absolute, so that they do not depend on how the page was reached."""

    def __init__(self, where: RelPath, prefix: str, own_names: frozenset[str]) -> None:
        self._prefix = prefix
        self._own_names = own_names
        self._where = where
        self._base = self.directory(where)
        # What a name may be long before nobody could ask for its path; nothing, at the deepest level.
        room = MAX_PATH - len(os.fsencode(str(where)))
        self._room = room if len(where.parts) < MAX_DEPTH else 0

    def directory(self, path: RelPath) -> str:
        """The link to a directory; it ends with a slash."""
        return url_of(path, self._prefix, self._own_names) + ("/" if path else "")

    def row(self, row: Row) -> str:
        """The link to an entry; empty for what cannot be opened or lies deeper than a path may reach."""
        if row.kind == "other" or len(os.fsencode(row.name)) > self._room:
            return ""
        base = self._base
        if not self._where and row.name.partition("/")[0] in self._own_names:
            base = f"{self._prefix}{FILES_ROUTE}/"
        # Not through a RelPath for each: that alone would take longer than the rest of the page. A slash in
        # a name can only be the separator of a nested `--dir`.
        href = base + quote_name(row.name).replace("%2F", "/")
        return f"{href}/" if row.kind == "directory" else href


def _entry(row: Row, links: _Links) -> _Entry:
    is_file = row.kind == "file"
    return _Entry(
        links.row(row),
        visible(row.name),
        row.kind == "directory",
        human_size(row.size) if is_file else _INSTEAD_OF_SIZE.get(row.kind, "special"),
        _exact(row.size) if is_file else "",
        _minutes(row.mtime),
    )


_INSTEAD_OF_SIZE = {"directory": "–", "link": "link"}


def _minutes(mtime: float) -> str:
    """`mtime` as ISO 8601 in UTC to the minute; a dash outside the years 1 to 9999."""
    try:
        day, minute = divmod(int(mtime // 60), 24 * 60)
        return f"{_day(day)} {minute // 60:02}:{minute % 60:02}"
    except (OverflowError, ValueError):
        return "–"


@functools.lru_cache(maxsize=1024)
def _day(days: int) -> str:
    # Kept, because the entries of a large directory share few days.
    return date.fromordinal(_EPOCH + days).isoformat()


_EPOCH = date(1970, 1, 1).toordinal()


def human_size(size: int) -> str:
    """A number of bytes in the largest binary unit that keeps it at one or more, as in ``1.5 MiB``."""
    if size < 1024:
        return f"{size} B"
    value = float(size)
    for unit in ("KiB", "MiB", "GiB", "TiB", "PiB"):
        value /= 1024
        # 1023.95 would be written as 1024.0.
        if value < 1023.95:
            return f"{value:.1f} {unit}"
    return f"{value / 1024:.1f} EiB"


def _exact(size: int) -> str:
    return "1 byte" if size == 1 else f"{size:,} bytes"


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
    return _disposition("attachment", name)


def _disposition(kind: str, name: str) -> bytes:
    safe = name.translate(_SAVED)
    # Some clients decode a percent sign or a backslash in the quoted form: neither goes there.
    plain = re.sub(r'[^ -~]|["%]', "_", safe)
    value = f'{kind}; filename="{plain}"'
    if plain != safe:
        value += "; filename*=UTF-8''" + quote(safe, safe="!#$&+-.^_`|~")
    return value.encode("ascii")


def inline_headers(name: str) -> tuple[bytes, bytes, tuple[tuple[bytes, bytes], ...]]:
    """How a file called `name` is shown in a browser: Content-Type, Content-Disposition, security headers.

    Only what a browser cannot run goes without the sandbox; the type comes from the name alone.
    """
    kind = media_type(name)
    policy = PASSIVE_POLICY if _is_passive(kind) else SANDBOX_POLICY
    content_type = f"{kind}; charset=utf-8" if kind == "text/plain" else kind
    return content_type.encode("ascii"), _disposition("inline", name), policy


def media_type(name: str) -> str:
    """The MIME type of a file by its last suffix, or by its whole name (``Makefile``), without parameters.

    A compressed file is of its compression's type: it is served as it lies on the disk.
    """
    # Not `mimetypes`: it reads the machine's own files at once, and its table differs from Python to Python.
    _, dot, suffix = name.lower().rpartition(".")
    types = _TYPES if dot else _WHOLE_NAMES
    return types.get(suffix, "application/octet-stream")


def _is_passive(kind: str) -> bool:
    if kind == "image/svg+xml":
        return False
    return kind.startswith(("image/", "video/", "audio/")) or kind in (
        "text/plain",
        "application/json",
        "application/pdf",
    )


# Scripts and style sheets are text here: nobody may use a file of the root as one on this origin.
_TEXT = """
    adoc asc bash bat c cc cfg cmake cmd conf cpp cs css csv cxx dart def desktop diff dump editorconfig el
    env erl ex exs fish gitattributes gitignore gitmodules go gradle groovy h hh hpp hs ini ipynb j2 java jl
    js jsonl jsx kt kts less lisp lock log lua m md markdown mjs mk ndjson nfo nix org out patch php pl pm po
    pot properties proto ps1 py pyi r rb rs rst sass sbt scala scss service sh srt sql sum swift tcl tex tf
    toml tsv tsx txt vim vtt yaml yml zsh
"""
_TYPES = dict.fromkeys(_TEXT.split(), "text/plain") | {
    suffix: kind
    for kind, suffixes in {
        "text/html": "html htm shtml",
        "application/xhtml+xml": "xhtml xht",
        "application/xml": "xml xsl xslt",
        "application/rss+xml": "rss",
        "application/atom+xml": "atom",
        "multipart/related": "mht mhtml",
        "application/wasm": "wasm",
        "application/json": "json",
        "application/pdf": "pdf",
        "image/svg+xml": "svg",
        "image/apng": "apng",
        "image/avif": "avif",
        "image/bmp": "bmp",
        "image/gif": "gif",
        "image/heic": "heic",
        "image/jpeg": "jpg jpeg jpe jfif",
        "image/jxl": "jxl",
        "image/png": "png",
        "image/tiff": "tif tiff",
        "image/vnd.microsoft.icon": "ico",
        "image/webp": "webp",
        "audio/aac": "aac",
        "audio/flac": "flac",
        "audio/midi": "mid midi",
        "audio/mp4": "m4a m4b",
        "audio/mpeg": "mp3",
        "audio/ogg": "ogg oga opus",
        "audio/wav": "wav",
        "audio/webm": "weba",
        "audio/x-aiff": "aif aiff",
        "audio/x-matroska": "mka",
        "video/3gpp": "3gp",
        "video/mp2t": "ts m2ts",
        "video/mp4": "mp4 m4v",
        "video/mpeg": "mpg mpeg",
        "video/ogg": "ogv",
        "video/quicktime": "mov",
        "video/webm": "webm",
        "video/x-matroska": "mkv",
        "video/x-msvideo": "avi",
        "font/otf": "otf",
        "font/ttf": "ttf",
        "font/woff": "woff",
        "font/woff2": "woff2",
        "application/epub+zip": "epub",
        "application/gzip": "gz tgz",
        "application/java-archive": "jar",
        "application/msword": "doc",
        "application/rtf": "rtf",
        "application/vnd.ms-excel": "xls",
        "application/vnd.ms-powerpoint": "ppt",
        "application/vnd.oasis.opendocument.presentation": "odp",
        "application/vnd.oasis.opendocument.spreadsheet": "ods",
        "application/vnd.oasis.opendocument.text": "odt",
        "application/vnd.openxmlformats-officedocument.presentationml.presentation": "pptx",
        "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": "xlsx",
        "application/vnd.openxmlformats-officedocument.wordprocessingml.document": "docx",
        "application/vnd.rar": "rar",
        "application/vnd.sqlite3": "sqlite sqlite3",
        "application/x-7z-compressed": "7z",
        "application/x-bzip2": "bz2 tbz2",
        "application/x-tar": "tar",
        "application/x-xz": "xz txz",
        "application/zip": "zip whl",
        "application/zstd": "zst tzst",
    }.items()
    for suffix in suffixes.split()
}
_TEXT_NAMES = """
    authors changelog changes codeowners containerfile contributing contributors copying copyright credits
    dockerfile gemfile gnumakefile history install jenkinsfile justfile licence license maintainers makefile
    news notice pipfile procfile rakefile readme security thanks todo vagrantfile version
"""
_WHOLE_NAMES = dict.fromkeys(_TEXT_NAMES.split(), "text/plain")


class StaticFile(NamedTuple):
    """A file of our own pages, whole, with a strong ETag of its content."""

    content_type: bytes
    data: bytes
    etag: bytes


_STATIC_TYPES = {
    "style.css": b"text/css; charset=utf-8",
    "icon.svg": b"image/svg+xml",
    "favicon.ico": b"image/vnd.microsoft.icon",
}


@functools.cache
def _load_static(name: str) -> StaticFile:
    data = (resources.files("fileexport.web") / "static" / name).read_bytes()
    return StaticFile(_STATIC_TYPES[name], data, b'"%s"' % sha256(data).hexdigest()[:32].encode("ascii"))


class _Static(Mapping[str, StaticFile]):
    """Our static files by name, each read from the package once, when it is first asked for."""

    def __getitem__(self, name: str) -> StaticFile:
        if name not in _STATIC_TYPES:
            raise KeyError(name)
        return _load_static(name)

    def __iter__(self) -> Iterator[str]:
        return iter(_STATIC_TYPES)

    def __len__(self) -> int:
        return len(_STATIC_TYPES)


STATIC: Mapping[str, StaticFile] = _Static()
