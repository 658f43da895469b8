"""Hostile names, paths and links as a table, and the tree that they aim at.

Every vector goes through every verb and route; whatever comes back holds none of the markers that the
caller may not see:

- `SECRET` is in the files outside the root and in `.fileexport/`: nobody may see it.
- `NEIGHBOUR` is in the root but outside `UNDER`: a caller whose part is `UNDER` may not see it.
- `HIDDEN` is behind names that begin with a dot: a caller without a token may not see it.

Beside them lie files whose *names* hold the marker, which no vector spells: a listing that leaks shows it.
What may be seen holds `OPEN`.

Of the machine itself only what cannot be removed is named (`/proc`): a jail that fails a test must not take
the machine's files with it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import NamedTuple

SECRET = "secret-6f1d0c"
NEIGHBOUR = "neighbour-b27e94"
HIDDEN = "hidden-93ac51"
OPEN = "open-0e8f27"

#: The caller's part of the root, for the vectors that try to leave it (`dir=`, `--dir`, `under=`).
UNDER = "a"
#: What `root` and `outside` are called; they lie beside each other, so that a path can spell the way.
ROOT_NAME, OUTSIDE_NAME = "root", "outside"


class Vector(NamedTuple):
    """A path as text (surrogate escapes for bytes that are not UTF-8), and what it tries in a few words.

    It is a value of `dir=`, split at its last slash also one of `name=`, and a URL once each byte but the
    slashes is percent-encoded.
    """

    label: str
    path: str


# -- `..` and what some decoder may take for it

_DOTDOT_TEXT: tuple[str | bytes, ...] = (
    *(".. ", " ..", ". .", ".. .", "..\t", "..\n", "..\r\n"),
    *r"""
        .. ... .... ..; ..;a=b ..? ..# ..: ..* .." ..' ..~ ..| ..& ~ ~root $HOME ..\ \.. ..\.. ..\..\ .\.. \
        ..%00 ..%2f ..%5c %2e%2e %2E. .%2e %252e%252e %u002e%u002e %c0%ae%c0%ae &#46;&#46; \x2e\x2e +AC4ALg-
    """.split(),
    *"""
        ..\0 \0.. .\0. .\0.\0 \0.\0. ..\x7f \x1b.. \uff0e\uff0e \u2024\u2024 \u2025 \u2026 \ufe52\ufe52
        .\u200b. \u202e.. \ufeff.. ..\uff0f ..\u2044 ..\u2215 ..\uff3c .\u0307.
    """.split(),
    *b"""
        \xc0\xae\xc0\xae \xe0\x80\xae\xe0\x80\xae \xf0\x80\x80\xae\xf0\x80\x80\xae ..\xc0\xaf ..\xe0\x80\xaf
        ..\xff \xff.. \xff\xfe.\0.\0 \xed\xa0\xae\xed\xb0\xae .\x80. ..\xc0\x80
    """.split(),
)
_DOTDOT_PLACES = (
    "{0}/outside/secret.txt",
    "a/{0}/{0}/outside/secret.txt",
    "a/{0}/ab/secret.txt",
    "a/deep/er/{0}/{0}/{0}/ab",
    "a/file.txt/{0}/{0}/ab/secret.txt",
)

_DOTDOT_RAW = b"""
    .. %2e%2e %2E%2E %2e. .%2e %2E. .%2E %2e%2E %2E%2e %252e%252e %252E. %25252e%25252e %%32%65%%32%65 ..%
    %2%65%2%65 %2e%2 %c0%ae%c0%ae %C0%AE. %c0%2e%c0%2e %e0%80%ae%e0%80%ae %f0%80%80%ae%f0%80%80%ae
    %c0%ae%c0%ae%c0%af %uff0e%uff0e %u002e%u002e %ff%fe.%00.%00 .%00.%00 %00.%00. %ef%bc%8e%ef%bc%8e
    %e2%80%a4%e2%80%a4 %e2%80%a5 %e2%80%a6 .%e2%80%8b. ..%00 %00.. .%00. ..%0a ..%0d%0a ..%09 ..%20 %20..
    ..%7f ..%01 ..%2f ..%2F.. %2e%2e%2f %2f.. ..%252f ..%c0%af ..%ef%bc%8f ..%e2%88%95 ..\\ ..%5c ..%5C..
    %5c.. %2e%2e%5c ..%255c ..%c1%9c ..\\..%2f.. ..; ..;a=b ..%3b ..%3f ..%23 ..%26 ..%2b ..+ ... .... ..%ff
    \xc0\xae\xc0\xae \xef\xbc\x8e\xef\xbc\x8e ..\xff .%2e;/ %3c%2f.. %2e/%2e.
""".split()
_DOTDOT_URLS = (
    b"/%s/outside/secret.txt",
    b"/a/%s/ab/secret.txt",
    b"/-/files/%s/outside/secret.txt",
)

# -- names of our own, hidden names, neighbours, other machines' roots

_PLAIN = {
    "absolute": """
        /proc/version //proc/version ///proc/version /proc/./version /./proc/version /.//proc/version
        proc/version /proc/self/environ /proc/self/cmdline /proc/self/maps /proc/self/root/proc/version
        /proc/self/cwd/secret.txt /proc/self/fd/0 /proc/self/fd/3 /proc/self/fd/4/../outside/secret.txt
        /proc/self/exe /proc/thread-self/root/proc/version /proc/1/environ /proc/self/fd/1
        /proc/sys/kernel/hostname /sys/kernel/notes /outside/secret.txt //outside/secret.txt
        //localhost/proc/version file:///proc/version file:/proc/version C:/Windows/win.ini
        C:\\Windows\\win.ini C:secret.txt \\\\server\\share \\proc\\version //?/C:/secret.txt CON NUL
        a/NUL.txt file.txt::$DATA file.txt: a/file.txt/ a//file.txt/.
    """,
    "ours": """
        .fileexport .fileexport/ /.fileexport .fileexport/new-secret .fileexport//new-secret ./.fileexport
        .fileexport/./new-secret .fileexport/../.fileexport/new-secret .fileexport/. .fileexport/..
        .fileexport/../file.txt a/.fileexport a/.fileexport/new-secret a/./.fileexport/new-secret
        a/deep/.fileexport a/deep/.fileexport/new-secret a/deep/er/.fileexport/new-secret
        ab/.fileexport/new-secret .FILEEXPORT/new-secret .FileExport/new-secret .fileExport/new-secret
        .fileexport./new-secret .fileexport;/new-secret .fileexport::$INDEX_ALLOCATION/new-secret
        .fileexp~1/new-secret FILEEX~1/new-secret .fileexport\\new-secret a\\.fileexport\\new-secret
        %2efileexport/new-secret .%66ileexport/new-secret .fileexport%00/new-secret .fileexport%2fnew-secret
        \uff0efileexport/new-secret .\ufb01leexport/new-secret .f\u0131leexport/new-secret
        .fileexport\u200b/new-secret .fileexport/new- .fileexport/* .fileexport/new-* file.txt/.fileexport
        file.txt/.fileexport/new-secret
    """,
    "hidden": """
        .env .hidden .hidden/ .hidden/secret.txt .hidden/.more/secret.txt a/.env a/.hidden/secret.txt
        a/deep/.env ./.env .//.env .hidden/../.env a/../.env .hidden/../file.txt %2eenv .env/ .env/.
        .git/config .ENV
    """,
    "neighbour": """
        ab ab/ ab/secret.txt /ab/secret.txt a/ab ab/. A A/secret.txt a.b/secret.txt a-/secret.txt
        a%2f../ab/secret.txt a/../ab/secret.txt a/./../ab/secret.txt a//../ab/secret.txt
        a/deep/../../ab/secret.txt a/file.txt/../../ab a/missing/../../ab/secret.txt
        a/links/../../ab/secret.txt ./a/../ab a/..;/ab/secret.txt a/..\\ab\\secret.txt a\\..\\ab\\secret.txt
        a;/ab/secret.txt a/.. a/../ a/../. a/../ab/ a/../links/neighbour b ab/../a/file.txt
    """,
    "special": """
        special/fifo special/socket special/null special/zero special/fifo/ special/fifo/x special/socket/x
        a/special/fifo a/special/socket a/special/null a/special/zero special/fifo/..
        special/null/../../file.txt
    """,
}

#: Names that break logs, headers, pages and terminals.
_ODD: tuple[str | bytes, ...] = (
    *("new\nline", "carriage\rreturn", "tab\tname", "space name", " leading", "trailing ", "\u2028"),
    *"""
        bell\x07 \x1b[31mred \x1b]0;title\x07 back\\slash quote"name quote'name <script>alert(1)<script>
        percent%2e%2e percent% question?x=1 hash#x semi;colon amp&ersand plus+plus star* -rf --help
        \u202egnp.exe \u200bzero e\u0301 \u00e9 \U0001f4c4 \x7f \x80 $(id) `id` |id
    """.split(),
    *b"""
        \xff\xfe latin-\xe9 \xc0\xaf \xed\xa0\x80 half\xe2\x82 \xf5\x80\x80\x80
    """.split(),
)
ODD_NAMES: tuple[str, ...] = tuple(map(os.fsdecode, _ODD))

#: Links, made once in `links/` and once in `a/links/`. `{up}` is the root and `{out}` what lies outside, both
#: as seen from the link; `{abs}` is the outside and `{root}` the root from the top of the machine.
LINKS: tuple[tuple[str, str], ...] = (
    ("outside-file", "{out}/secret.txt"),
    ("outside-dir", "{out}"),
    ("outside-dir-slash", "{out}/"),
    ("outside-dir-dot", "{out}/."),
    ("outside-slashes", ".//{out}//secret.txt"),
    ("above", "{up}/.."),
    ("far-above", "../../../../../../../../../../../../../../../../../../../../../../../..{abs}"),
    ("out-and-in", "{up}/../root/file.txt"),
    ("out-and-in-dir", "{up}/../root"),
    ("out-and-in-deep", "{out}/../root/a"),
    ("absolute-file", "{abs}/secret.txt"),
    ("absolute-dir", "{abs}"),
    ("absolute-top", "/"),
    ("absolute-inside", "{root}/file.txt"),
    ("absolute-slashes", "//{abs}/secret.txt"),
    ("absolute-dots", "{root}/../outside/secret.txt"),
    ("absolute-proc", "/proc/version"),
    ("proc-root", "/proc/self/root{abs}/secret.txt"),
    ("proc-cwd", "/proc/self/cwd"),
    ("proc-fd", "/proc/self/fd"),
    ("proc-thread", "/proc/thread-self/root{abs}"),
    ("through-file", "{up}/file.txt/x"),
    ("through-file-out", "{up}/file.txt/../../outside/secret.txt"),
    ("through-missing-out", "missing/../{out}/secret.txt"),
    ("through-link-out", "outside-dir/secret.txt"),
    ("through-link-up", "outside-dir/../outside/secret.txt"),
    ("through-dir-up", "down/../{out}/secret.txt"),
    ("down", "../deep"),
    ("down-up", "down/../../.."),
    ("chain-3", "chain-2"),
    ("chain-2", "chain-1"),
    ("chain-1", "outside-file"),
    ("chain-dir", "./chain-dir-1"),
    ("chain-dir-1", "../links/outside-dir"),
    ("chain-absolute", "absolute-dir"),
    ("loop-self", "loop-self"),
    ("loop-there", "loop-back"),
    ("loop-back", "loop-there"),
    ("loop-dots", "../links/loop-dots"),
    ("loop-deep", "loop-deep/x"),
    ("dangling", "missing"),
    ("dangling-out", "{out}/missing"),
    ("ours", "{up}/.fileexport"),
    ("ours-file", "{up}/.fileexport/new-secret"),
    ("ours-beside", "../.fileexport/new-secret"),
    ("ours-passed", "../.fileexport/../file.txt"),
    ("hidden-file", "{up}/.env"),
    ("hidden-dir", "{up}/.hidden"),
    ("hidden-beside", "../.hidden/secret.txt"),
    ("hidden-passed", "../.hidden/../file.txt"),
    ("neighbour", "{up}/ab/secret.txt"),
    ("neighbour-dir", "{up}/ab"),
    ("neighbour-back", "{up}/ab/../a/file.txt"),
    ("fifo", "../special/fifo"),
    ("socket", "../special/socket"),
    ("null", "../special/null"),
    ("zero", "../special/zero"),
    *((f"hop-{number:02}", f"hop-{number - 1:02}") for number in range(1, 42)),
    ("hop-00", "outside-file"),
    *((f"odd-{name}", "{out}/secret.txt") for name in ODD_NAMES),
)

_LONG = {
    "name of 255": "n" * 255,
    "name of 256": "n" * 256,
    "name of 4 KiB": "n" * 4096,
    "name of 255 characters and 510 bytes": "\u00e9" * 255,
    "path of 4 KiB": "a/deep/er/../" * 320,
    "64 names": "d/" * 64,
    "65 names": "d/" * 65,
    "1,000 names": "d/" * 1000,
    "1,000 times up": "../" * 1000 + "proc/version",
    "1,000 slashes": "/" * 1000 + "proc/version",
    "1,000 dots": "." * 1000,
    "64 names and up": "a/deep/er/" * 20 + "../" * 61 + "outside/secret.txt",
    "1,000 times here": "./" * 1000 + "../outside/secret.txt",
    "ours, deep": "d/" * 63 + ".fileexport",
    "a loop's length": "links/loop-self/" * 30,
}


def _vectors() -> Iterator[Vector]:
    for place, text in product(_DOTDOT_PLACES, map(os.fsdecode, _DOTDOT_TEXT)):
        yield Vector(f"up: {text!a} in {place}", place.format(text))
    for aim, paths in _PLAIN.items():
        for path in paths.split():
            yield Vector(f"{aim}: {path!a}", path)
    for (name, target), base in product(LINKS, ("links", f"{UNDER}/links")):
        yield Vector(f"link: {base}/{name!a} to {target}", f"{base}/{name}")
        yield Vector(f"link passed: {base}/{name!a} to {target}", f"{base}/{name}/secret.txt")
    for base in ("links", f"{UNDER}/links"):
        for name in ("outside-dir", "above", "out-and-in-dir", "absolute-top", "down"):
            yield Vector(f"link and up: {base}/{name}", f"{base}/{name}/../secret.txt")
            yield Vector(f"link and outside: {base}/{name}", f"{base}/{name}/outside/secret.txt")
    for name in ODD_NAMES:
        yield Vector(f"odd: {name!a}", f"odd/{name}")
        yield Vector(f"odd and up: {name!a}", f"odd/{name}/../../../outside/secret.txt")
    for label, path in _LONG.items():
        yield Vector(f"long: {label}", path)


def _raw_urls() -> Iterator[bytes]:
    for place, text in product(_DOTDOT_URLS, _DOTDOT_RAW):
        yield place % ((text,) * place.count(b"%s"))
    yield from b"""
        //outside/secret.txt ///outside/secret.txt /%2foutside/secret.txt /%2e%2e%2foutside%2fsecret.txt
        /a%2f..%2fab%2fsecret.txt /a/%2e%2e/%2e%2e/outside/secret.txt /a%2f%2e%2e%2f%2e%2e/outside/secret.txt
        /%2fproc%2fversion //%2fproc/version /%00/proc/version /proc%00/version /file.txt%00.png
        /file.txt%00/../../outside/secret.txt /%2efileexport/new-secret /.fileexpor%74/new-secret
        /%2e%66ileexport/new-secret /%252efileexport/new-secret /.fileexport%2fnew-secret
        /.fileexport%00/new-secret /a/%2Efileexport/new-secret /-/files/%2efileexport/new-secret
        /-/files/.fileexport/new-secret /-/files//.fileexport/new-secret
        /-/files/-/files/../../../outside/secret.txt /-/files /-/files/ /-/files// /-/files/%2e%2e
        /-/../.fileexport/new-secret /-/%2e%2e/%2e%2e/outside/secret.txt /-/static/../../../../../proc/version
        /-/static/%2e%2e/%2e%2e/paths.py /-/static/..%2f..%2fpaths.py /%2eenv /%2ehidden/secret.txt /.%65nv
        /a/%2eenv /-/files/%2eenv /links/outside%2ddir/secret.txt /links/outside-dir%2fsecret.txt
        /links%2foutside-dir/secret.txt /%6cinks/outside-file /links/outside-file%00
        /list/../../outside/secret.txt /get/../../outside/secret.txt /delete/../../outside/secret.txt /list/
        /list%00 /%6cist /a;/../ab/secret.txt /;/../../outside/secret.txt /%3b/%2e%2e/outside/secret.txt /./
        /. /.. /%2e /%2e%2e /%2e%2e/ /%c0%af..%c0%afoutside%c0%afsecret.txt /%e0%80%af../outside
        /%u2215..%u2215outside /%5c..%5coutside%5csecret.txt /%s%s%s%n /%x /% /%% /%2 /%zz /%-1 /%2e%zz
        /%ff%ff%ff /%F0%9F%98%80 /%ED%A0%80 /%1b%5b31m /%0d%0aX-Evil:%20yes /file.txt%20 /file.txt.
        /file.txt%2e /file.txt/ /file.txt/. /file.txt/%2e%2e/%2e%2e/outside/secret.txt /FILE.TXT
    """.split()


VECTORS: tuple[Vector, ...] = tuple({vector.path: vector for vector in _vectors()}.values())
#: Paths of a URL as they stand in a request line, without its query: encodings that no text can spell.
RAW_URLS: tuple[bytes, ...] = tuple(dict.fromkeys(_raw_urls()))


def build(root: Path, outside: Path) -> None:
    """Make the tree: `root` and `outside`, which must lie beside each other under these very names.

    Where devices cannot be made, the reason is printed and the vectors that aim at them aim at nothing.
    """
    if (root.name, outside.name) != (ROOT_NAME, OUTSIDE_NAME) or root.parent != outside.parent:
        raise ValueError("the vectors spell the way from root/ to outside/ beside it")
    for directory in (outside, outside / "dir"):
        _fill(directory, SECRET)
    for directory in (root, root / UNDER, root / UNDER / "deep", root / UNDER / "deep/er", root / "deep"):
        directory.mkdir(parents=True)
        (directory / "file.txt").write_text(OPEN)
        _fill(directory / ".fileexport", SECRET)
        _fill(directory / ".hidden", HIDDEN)
        _fill(directory / ".hidden/.more", HIDDEN)
        (directory / ".env").write_text(HIDDEN)
    for name in ("ab", "A", "a.b", "a-", "b"):
        _fill(root / name, NEIGHBOUR)
    _fill(root / "ab/.fileexport", SECRET)
    for directory in (root, root / UNDER):
        _links(directory / "links", root, outside)
        _special(directory / "special")
    (root / "odd").mkdir()
    for name in ODD_NAMES:
        (root / "odd" / name).write_text(OPEN)


def _fill(directory: Path, marker: str) -> None:
    directory.mkdir(parents=True)
    for name in ("secret.txt", "new-secret", f"listed-{marker}"):
        (directory / name).write_text(marker)


def _links(directory: Path, root: Path, outside: Path) -> None:
    directory.mkdir()
    up, out = os.path.relpath(root, directory), os.path.relpath(outside, directory)
    for name, target in LINKS:
        text = target.format(up=up, out=out, abs=outside.absolute(), root=root.absolute())
        (directory / name).symlink_to(text)


def _special(directory: Path) -> None:
    directory.mkdir()
    os.mkfifo(directory / "fifo")
    os.mknod(directory / "socket", stat.S_IFSOCK | 0o666)
    try:
        os.mknod(directory / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        os.mknod(directory / "zero", stat.S_IFCHR | 0o666, os.makedev(1, 5))
    except PermissionError as error:
        print(f"no devices in {directory.name}/: {error.strerror} (only root may make them)")
