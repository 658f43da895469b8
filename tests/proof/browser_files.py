"""What the browser's tests show to it: names that are hard to link to, media, and all that may do harm."""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path

from tests.proof.browser import Document

# Names

#: Names and how a reader sees them, where that is not the name itself.
SEEN_AS: dict[bytes, str] = {
    b"new\nline": "new\u240aline",
    b"tab\tand\x7fdelete": "tab\u2409and\u2421delete",
    b"latin-1 caf\xe9": "latin-1 caf\ufffd",
    "turned \u202egpj.exe".encode(): "turned \ufffdgpj.exe",
}
ODD_NAMES: tuple[bytes, ...] = (
    *SEEN_AS,
    *(
        name.encode()
        for name in (
            "two words",
            "it's",
            'say "hello"',
            " space before and after ",
            "%41%2e%2E%2f%00",
            "what?json#1",
            "a&b&amp;c",
            "<script>alert(1)<",
            "http:",
            "..x",
            "caf\u00e9 \u65e5\u672c\u8a9e",
            "back\\slash",
            # These are names of files only.
            "100%",
            "#1",
            "what?",
            "{{ 7 * 7 }}",
            "a;b=c+d,e@f$g!h*(i)[j]",
            "~",
            "...",
            ". .",
            "caf\u00e9",
            "cafe\u0301",
            "\u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627",
            "\U0001f469\u200d\U0001f4bb\U0001f44d\U0001f3fd",
            "x" * 251,
        )
    ),
)
#: The daemon's own paths, as names in the root.
OWN_NAMES = (b"list", b"get", b"tar", b"delete", b"stop")


def odd_tree(root: Path) -> None:
    """Fill `root`: each odd name as a file, 16 as directories too, four of them deep; our routes' names.

    The content of each file is its own path, so that no two are the same.
    """
    for name in ODD_NAMES:
        _write(root, name + b".txt")
    for first in range(0, 16, 4):
        _write(root, *ODD_NAMES[first : first + 4], b"deep.txt")
    for name in OWN_NAMES:
        _write(root, name)
    for below in ((b"get",), (b"list", b"list"), (b"static", b"style.css"), (b"-", b"-", b"-")):
        _write(root, b"-", *below)
    _path(root, b"empty").mkdir()


def _write(root: Path, *names: bytes) -> None:
    path = _path(root, *names)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"/" + b"/".join(names))


def _path(root: Path, *names: bytes) -> Path:
    return root.joinpath(*map(os.fsdecode, names))


def label(name: str) -> str:
    """How a page shows a name of the odd tree."""
    raw, suffix = os.fsencode(name.removesuffix(".txt")), name[len(name.removesuffix(".txt")) :]
    return SEEN_AS[raw] + suffix if raw in SEEN_AS else name


# Media

#: Two seconds of 96x64: ffmpeg -f lavfi -i testsrc=size=96x64:rate=10:duration=2 -c:v libvpx -b:v 40k -g 10
WEBM = Path(__file__).with_name("data") / "moving.webm"


def png(width: int, height: int) -> bytes:
    """An image of one colour: PNG, eight bits of red, green and blue."""
    rows = (b"\0" + b"\x0b\x57\xa4" * width) * height
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


# Files that try to run scripts, or to have the browser ask for something. Where one gets its way, `beacon` of
# its name is asked for.

#: What stands in most of them as text: a reader sees it.
GREETING = "Good morning."

_AS_HTML, _AS_XHTML, _AS_XML = "text/html; charset=utf-8", "application/xhtml+xml", "text/xml"
_AS_SVG, _AS_SCRIPT = "image/svg+xml", "text/javascript"


def beacon(name: str) -> str:
    """The path that is asked for where the file `name` gets its way."""
    return f"/beacon/{name}"


def _script(name: str) -> str:
    """Leaves its mark wherever a script of this origin can. It may stand in XML and in an attribute."""
    return (
        f"console.log('ran {name}'); document.title = 'ran'; window.name = 'ran'; "
        f"fetch('{beacon(name)}'); localStorage.setItem('ran', '{name}');"
    )


def _html(body: str) -> Document:
    text = f"<!DOCTYPE html><meta charset=utf-8><title>t</title><p>{GREETING}</p>{body}"
    return Document(_AS_HTML, text.encode())


def _inline(name: str) -> Document:
    return _html(f"<script>{_script(name)}</script>")


def _xhtml(name: str) -> Document:
    text = (
        '<html xmlns="http://www.w3.org/1999/xhtml"><head><title>t</title></head>'
        f"<body><p>{GREETING}</p><script>{_script(name)}</script></body></html>"
    )
    return Document(_AS_XHTML, text.encode())


def _xml(name: str, declaration: str = "") -> Document:
    text = (
        f'<?xml version="1.0"?>{declaration}<page>{GREETING}'
        f'<script xmlns="http://www.w3.org/1999/xhtml">{_script(name)}</script></page>'
    )
    return Document(_AS_XML, text.encode())


def _styled(name: str) -> Document:
    """Asks for a style sheet (XSLT) instead of showing itself; a browser without those runs the script."""
    return _xml(name, f'<?xml-stylesheet type="text/xsl" href="{beacon(name)}"?>')


def _svg(content: str, attributes: str = "") -> Document:
    text = f'<svg xmlns="http://www.w3.org/2000/svg"{attributes}><title>t</title>{content}</svg>'
    return Document(_AS_SVG, text.encode())


def _in_svg(name: str) -> Document:
    return _svg(f'<text y="20">{GREETING}</text><script>{_script(name)}</script>')


#: Files that do it when they are opened, with the type that a careless server gives them.
_WHEN_OPENED: dict[str, Document] = {
    **{name: _inline(name) for name in ("inline.html", "inline.htm", "inline.shtml", "inline.HTML")},
    "module.html": _html(f"<script type=module>{_script('module.html')}</script>"),
    "source.html": _html("<script src=/payload.js></script>"),
    "onload.html": _html(f'<body onload="{_script("onload.html")}">'),
    "onerror.html": _html(f'<img src="data:," onerror="{_script("onerror.html")}">'),
    "onfocus.html": _html(f'<input autofocus onfocus="{_script("onfocus.html")}">'),
    "ontoggle.html": _html(f'<details open ontoggle="{_script("ontoggle.html")}">d</details>'),
    "svg.html": _html(f'<svg onload="{_script("svg.html")}"></svg>'),
    "srcdoc.html": _html(f'<iframe srcdoc="<script>{_script("srcdoc.html")}</script>"></iframe>'),
    "frame.html": _html(f'<iframe src="javascript:{_script("frame.html")}"></iframe>'),
    "object.html": _html("<object data=/payload.svg></object>"),
    "refresh.html": _html(f'<meta http-equiv=refresh content="0;url={beacon("refresh.html")}">'),
    "image.html": _html(f"<img src={beacon('image.html')}>"),
    "video.html": _html(f"<video src={beacon('video.html')}></video>"),
    "style.html": _html(f"<link rel=stylesheet href={beacon('style.html')}>"),
    "import.html": _html(f"<style>@import url({beacon('import.html')});</style>"),
    "background.html": _html(f"<style>html {{ background: url({beacon('background.html')}) }}</style>"),
    **{name: _xhtml(name) for name in ("strict.xhtml", "strict.xht")},
    **{name: _xml(name) for name in ("data.xml", "sheet.xsl", "feed.rss", "feed.atom")},
    "styled.xml": _styled("styled.xml"),
    "drawing.svg": _in_svg("drawing.svg"),
    "onload.svg": _svg(f'<text y="20">{GREETING}</text>', f' onload="{_script("onload.svg")}"'),
}
#: Files that do it when what has the id `click` in them is clicked.
CLICKED: Mapping[str, Document] = {
    "link.html": _html(f'<a id=click href="javascript:{_script("link.html")}">c</a>'),
    "button.html": _html(f'<button id=click onclick="{_script("button.html")}">c</button>'),
    "form.html": _html(f"<form action={beacon('form.html')}><button id=click>c</button></form>"),
    "ping.html": _html(f'<a id=click href="#" ping={beacon("ping.html")}>c</a>'),
    "link.svg": _svg(
        f'<a id="click" href="javascript:{_script("link.svg")}"><text y="20">{GREETING}</text></a>'
    ),
}
#: HTML that the end of its name calls something harmless: it may only be shown as that.
DISGUISED: Mapping[str, Document] = {
    name: _inline(name) for name in ("page.txt", "page.js", "page.css", "page.json", "page.md", "page.log")
}
ACTIVE: Mapping[str, Document] = {**_WHEN_OPENED, **CLICKED, **DISGUISED}
#: What others load.
LOADED: Mapping[str, Document] = {
    "payload.js": Document(_AS_SCRIPT, _script("source.html").encode()),
    "payload.svg": _in_svg("object.html"),
}

# What a page of another origin tries

#: By name, JavaScript that sends a request to a URL of the daemon's without leaving the page.
ATTACKS: Mapping[str, str] = {
    "image": "url => { new Image().src = url }",
    "fetch": "url => { fetch(url) }",
    "no-cors": "url => { fetch(url, {mode: 'no-cors', credentials: 'include'}) }",
    "post": "url => { fetch(url, {mode: 'no-cors', method: 'POST', body: 'a=b'}) }",
    "preflight": "url => { fetch(url, {method: 'DELETE'}) }",
    "beacon": "url => { navigator.sendBeacon(url, 'a=b') }",
    "events": "url => { new EventSource(url) }",
    "socket": "url => { new WebSocket(url.replace('http:', 'ws:')) }",
    "worker": "url => { new Worker(URL.createObjectURL(new Blob([`importScripts('${url}')`]))) }",
    "background": "url => { document.body.style.background = `url(${url})` }",
    "redirected": "url => { new Image().src = '/away?' + encodeURIComponent(url) }",
    "window": "url => { open(url) }",
    "opener": "url => { open(url, '', 'noopener,noreferrer') }",
    **{
        name: f"url => {{ document.body.append("
        f"Object.assign(document.createElement('{tag}'), {{{properties}}})) }}"
        for name, tag, properties in (
            ("script", "script", "src: url"),
            ("module", "script", "src: url, type: 'module'"),
            ("style", "link", "href: url, rel: 'stylesheet'"),
            ("prefetch", "link", "href: url, rel: 'prefetch'"),
            ("frame", "iframe", "src: url"),
            ("no-referrer", "iframe", "src: url, referrerPolicy: 'no-referrer'"),
            ("sandboxed", "iframe", "src: url, sandbox: ''"),
            ("object", "object", "data: url"),
            ("video", "video", "src: url"),
        )
    },
    **{
        f"form-{method}": f"""url => {{
            const form = document.createElement('form'), frame = document.createElement('iframe');
            Object.assign(frame, {{name: 'hidden-{method}'}});
            Object.assign(form, {{action: url, method: '{method}', target: frame.name}});
            for (const [name, value] of new URL(url).searchParams)
                form.append(Object.assign(document.createElement('input'), {{name, value}}));
            document.body.append(frame, form);
            form.submit();
        }}"""
        for method in ("get", "post")
    },
}
#: By name, JavaScript that brings the reader's page itself to a URL of the daemon's, soon after it returns.
DEPARTURES: Mapping[str, str] = {
    "location": "url => { setTimeout(() => { location = url }) }",
    "link": """url => {
        const link = Object.assign(document.createElement('a'), {href: url});
        document.body.append(link);
        setTimeout(() => link.click());
    }""",
}
#: Files that a page may want to read, with the type that a careless server gives them.
READABLE: Mapping[str, Document] = {
    "image.png": Document("image/png", png(2, 2)),
    "moving.webm": Document("video/webm", WEBM.read_bytes()),
    "plain.css": Document("text/css", b"p { color: red }"),
    "plain.js": Document(_AS_SCRIPT, b"0"),
}
#: By name, JavaScript that tries to read a URL: `null`, or something of what it got.
READS: Mapping[str, str] = {
    "fetch": "url => fetch(url).then(answer => answer.text(), () => null)",
    "no-cors": "url => fetch(url, {mode: 'no-cors'}).then(answer => answer.type, () => null)",
    **{
        tag: f"""url => new Promise(resolve => {{
            const element = document.createElement('{tag}');
            element.onload = element.onloadeddata = () => resolve('loaded');
            element.onerror = () => resolve(null);
            document.body.append(Object.assign(element, {{{properties}}}));
        }})"""
        for tag, properties in (
            ("img", "src: url"),
            ("script", "src: url"),
            ("link", "rel: 'stylesheet', href: url"),
            ("video", "src: url"),
        )
    },
}
