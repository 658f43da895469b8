"""Pages as a browser sees them: elements in order, links with their text, forms with their fields."""

from __future__ import annotations

from collections.abc import Sequence
from html.parser import HTMLParser
from urllib.parse import urljoin, urlsplit

from fileexport.paths import RelPath
from fileexport.tokens import Right
from fileexport.web.directory import UNASKED, Row, View, Visitor, directory_page, listing_page
from fileexport.web.pages import FILES_ROUTE, Addresses

OWN_NAMES = frozenset({"list", "get", "tar", "delete", "stop", "favicon.ico", "-"})
PLAIN = Addresses("", OWN_NAMES)
ROOT = RelPath()
#: Whoever may do everything, and came without a token.
ANYBODY = Visitor(Right.ALL)


class Page(HTMLParser):
    """A page: its elements, attributes, links, the text of its table's rows, and all of its text."""

    def __init__(self, page: bytes) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.links: list[tuple[str, str]] = []
        self.rows: list[str] = []
        self.text = ""
        self._href: str | None = None
        self._start = self._start_of_row = 0
        self.feed(page.decode("utf-8"))
        self.close()

    @property
    def attributes(self) -> list[tuple[str, str]]:
        """All attributes of all elements, in order."""
        return [pair for _, attributes in self.elements for pair in attributes.items()]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag == "a":
            self._href, self._start = dict(attrs)["href"], len(self.text)
        if tag == "tr":
            self._start_of_row = len(self.text)

    def handle_endtag(self, tag: str) -> None:
        if tag == "a" and self._href is not None:
            self.links.append((self._href, self.text[self._start :]))
        if tag == "tr":
            self.rows.append(self.text[self._start_of_row :])

    def handle_data(self, data: str) -> None:
        self.text += data

    def link(self, text: str) -> str:
        """The target of the only link with this text."""
        (found,) = [href for href, label in self.links if label == text]
        return found

    def by_id(self, name: str) -> dict[str, str]:
        """The attributes of the element with this id."""
        (found,) = [attributes for _, attributes in self.elements if attributes.get("id") == name]
        return found

    def ids(self) -> list[str]:
        """All ids, in order."""
        return [value for name, value in self.attributes if name == "id"]

    def entries(self) -> list[dict[str, str]]:
        """The rows of the table, by their attributes; without the one that is a pattern for others."""
        return [a for tag, a in self.elements if tag == "tr" and a.get("data-name")]


def follow(href: str, prefix: str = "") -> RelPath:
    """The path that the daemon understands when a browser follows `href` from any page of it."""
    target = urlsplit(urljoin(f"http://server:9006{prefix}/some/page/", href))
    assert (target.netloc, target.query, target.fragment) == ("server:9006", "", ""), href
    path = target.path.removeprefix(prefix)
    return RelPath.from_url(path.removeprefix(FILES_ROUTE).encode("ascii"))


def row(name: str, kind: str = "file", size: int = 1, mtime: float = 0.0) -> Row:
    """A row that is like any other but for its name."""
    return Row(name, kind, size, mtime)


def shown(where: RelPath, rows: Sequence[Row], *, prefix: str = "") -> Page:
    """The page that programs get."""
    return Page(listing_page(where, rows, Addresses(prefix, OWN_NAMES)))


def seen(
    where: RelPath,
    rows: Sequence[Row],
    visitor: Visitor | None = ANYBODY,
    *,
    view: View = UNASKED,
    addresses: Addresses = PLAIN,
    changeable: bool = True,
) -> Page:
    """The page that people get."""
    page = directory_page(
        where, rows, addresses, view=view, visitor=visitor, nonce="N0nce", changeable=changeable
    )
    return Page(page)
