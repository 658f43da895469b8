"""The manual's images show the page as it is."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.screenshots import IMAGES, NAMES, TAKEN_FROM, digest


class ScreenshotTests(SynchronousTestCase):
    """What the browser's tests have taken."""

    def test_new(self) -> None:
        """They were taken of the templates, styles and scripts that there are: else `make screenshots`."""
        self.assertEqual(TAKEN_FROM.read_text(), f"{digest()}\n", "run `make screenshots`, and look at them")

    def test_all(self) -> None:
        """Each of them is there and is a PNG; no other is."""
        found = {path.name: path.read_bytes()[:8] for path in IMAGES.glob("*.png")}
        self.assertEqual(found, dict.fromkeys(NAMES, b"\x89PNG\r\n\x1a\n"))
