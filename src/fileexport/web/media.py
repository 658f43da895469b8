"""What a file is to a browser, by its name: its type, and whether it must be kept from running.

A file of the root never gets to script this origin: what a browser could run is served in a sandbox.
"""

from __future__ import annotations

from functools import lru_cache

from fileexport.web.names import disposition

#: The headers of a file that a browser might run: sandboxed it has an origin of its own, no scripts and no
#: forms, and it loads nothing from anywhere, so that opening it cannot ask this server for anything.
SANDBOX_POLICY: tuple[tuple[bytes, bytes], ...] = (
    (b"Content-Security-Policy", b"sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:"),
)

#: The headers of a file that is only looked at. No sandbox: Chromium's PDF viewer and players need none.
PASSIVE_POLICY: tuple[tuple[bytes, bytes], ...] = ()


@lru_cache(maxsize=1024)
def inline_headers(name: str) -> tuple[bytes, bytes, tuple[tuple[bytes, bytes], ...]]:
    """How a file called `name` is shown in a browser: Content-Type, Content-Disposition, security headers.

    Only what a browser cannot run goes without the sandbox; the type comes from the name alone.
    """
    kind = media_type(name)
    content_type = f"{kind}; charset=utf-8" if kind == "text/plain" else kind
    return content_type.encode("ascii"), disposition("inline", name), policy_of(kind)


def policy_of(content_type: str) -> tuple[tuple[bytes, bytes], ...]:
    """The security headers of a file that is shown as of this type, with or without parameters."""
    kind = content_type.partition(";")[0].strip().lower()
    return PASSIVE_POLICY if _is_passive(kind) else SANDBOX_POLICY


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
