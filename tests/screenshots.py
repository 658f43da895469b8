"""The manual's images of the page, and what they were taken from."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

_CHECKOUT = Path(__file__).resolve().parents[1]
IMAGES = _CHECKOUT / "docs" / "images"
#: A digest of what makes the page, as it was when they were taken.
TAKEN_FROM = IMAGES / "taken-from.txt"
NAMES = ("directory.png", "directory-dark.png", "phone.png", "uploads.png", "sign-in.png", "share.png")


def digest() -> str:
    """What makes the page now: its templates, styles, scripts and icons, their names among them."""
    web = _CHECKOUT / "src" / "fileexport" / "web"
    made = sha256()
    for path in sorted([*(web / "static").iterdir(), *(web / "templates").iterdir()]):
        made.update(f"{path.relative_to(web)}\0{sha256(path.read_bytes()).hexdigest()}\n".encode())
    return made.hexdigest()


if __name__ == "__main__":
    TAKEN_FROM.write_text(f"{digest()}\n")
