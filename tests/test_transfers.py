"""`upload_files` and `download_files` against a daemon."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from fileexport.client import sides
from fileexport.client.blocking import Client
from fileexport.client.names import RemoteEntry
from fileexport.client.transfers import download_files, upload_files
from fileexport.errors import DestinationNotFound, FileNameError
from tests import transfers_case
from tests.cli_case import TOKEN, fill, tree
from tests.transfers_case import files_of


class UploadTests(transfers_case.BothWays):
    """`upload_files`."""

    def setUp(self) -> None:
        super().setUp()
        self.source, self.target = self.here, self.there
        self.library = self.client()

    def move(self, source: Any, **how: Any) -> bool:
        return upload_files(self.library, source, self.remote, self.here, **how)

    def test_absolute(self) -> None:
        """An absolute source below the relative directory keeps its structure, another goes by its name."""
        fill(self.here, {"d/a": "1"})
        upload_files(self.library, self.here / "d/a", self.remote, self.here)
        upload_files(
            self.library, self.here / "d/a", self.remote, self.here / "d", process_conflict="replace"
        )
        fill(self.here, {"x": None})
        upload_files(
            self.library, [self.here / "d" / "*"], self.remote, self.here / "x", process_conflict="skip"
        )
        self.assertEqual(files_of(self.there), {"a", "d/a"})

    def test_destination(self) -> None:
        """A missing destination, a relative one."""
        fill(self.here, {"a": "1", "b": "2"})
        for source in ("a", "*"):
            none = f"{self.remote}/none"
            self.assertRaises(DestinationNotFound, upload_files, self.library, source, none, self.here)
            self.assertRaises(ValueError, upload_files, self.library, source, "none", self.here)

    def test_name(self) -> None:
        """A name that may not be created, named itself, is `FileNameError`."""
        fill(self.here, {"a:b": "1"})
        self.assertRaises(FileNameError, self.move, "a:b")

    def test_left_out(self) -> None:
        """Links and FIFOs in a directory are left out."""
        fill(self.here, {"d/a": "1"})
        (self.here / "d/l").symlink_to("a")
        os.mkfifo(self.here / "d/p")
        self.assertTrue(self.move("d", recursive=True))
        self.assertEqual(tree(self.there), {"d": None, "d/a": "1"})


class DownloadTests(transfers_case.BothWays):
    """`download_files`."""

    def setUp(self) -> None:
        super().setUp()
        self.source, self.target = self.there, self.here
        self.library = self.client()

    def move(self, source: Any, **how: Any) -> bool:
        return download_files(self.library, source, self.here, self.remote, **how)

    def test_absolute(self) -> None:
        """An absolute source below the relative directory, by default the root, keeps its structure."""
        fill(self.there, {"d/a": "1"})
        download_files(self.library, f"{self.remote}/d/a", self.here, self.remote)
        download_files(self.library, f"{self.remote}/d/*", self.here, "/none")
        download_files(self.library, f"{self.remote}/d/a", self.here)
        self.assertEqual(files_of(self.here), {"a", "d/a", f"{self.there.name}/d/a"})

    def test_destination(self) -> None:
        """A missing destination."""
        fill(self.there, {"a": "1"})
        path = f"{self.remote}/a"
        self.assertRaises(DestinationNotFound, download_files, self.library, path, self.here / "none")

    def test_listings_end(self) -> None:
        """No listing is open while anything else is done: it would run into a time-out there."""
        fill(self.there, transfers_case.TREE)
        with Counting("127.0.0.1", self.port, TOKEN) as client:

            def process(path: str, size: int) -> bool:
                self.assertEqual(client.begun, 0)
                return True

            for source in (".", "*", "**/*.txt"):
                download_files(
                    client,
                    source,
                    self.here,
                    self.remote,
                    recursive=True,
                    process_file=process,
                    process_conflict="replace",
                )
            self.assertEqual((client.begun, client.listed > 0), (0, True))

    def test_large_tree(self) -> None:
        """A tree that is too large for one listing is listed by directories, and comes whole."""
        fill(self.there, transfers_case.TREE)
        for limit in (0, 1, 4):
            self.patch(sides, "LISTED", limit)
            self.move(".", recursive=True, exclude_files=["b.csv"], process_conflict="replace")
            expected = {name: content for name, content in tree(self.there).items() if name != "b.csv"}
            self.assertEqual(tree(self.here), expected)


class Counting(Client):
    """Counts the listings that are open."""

    begun = 0
    listed = 0

    def entries(self, *words: Any, **how: Any) -> Iterator[RemoteEntry]:
        self.begun += 1
        self.listed += 1
        try:
            yield from super().entries(*words, **how)
        finally:
            self.begun -= 1
