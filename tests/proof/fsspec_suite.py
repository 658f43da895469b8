"""The abstract suite that fsspec publishes for file systems, run by pytest: see `test_fsspec`.

The server is that of the environment. No test of the suite is left out, changed or expected to fail.
"""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import pytest
from fsspec.tests import abstract

from fileexport.client.remote.filesystem import FileExportFileSystem


class Fixtures(abstract.AbstractFixtures):
    """A file system, and a directory in it that is the test's own."""

    @pytest.fixture(scope="class")
    @classmethod
    def fs(cls) -> FileExportFileSystem:
        """As the suite's own local file system it makes the directories above what is written."""
        return FileExportFileSystem(auto_mkdir=True)

    @pytest.fixture
    def fs_path(self, fs: FileExportFileSystem) -> Iterator[str]:
        """An empty directory."""
        path = f"/{uuid4().hex}"
        fs.mkdir(path)
        yield path
        fs.rm(path, recursive=True)


class TestCopy(abstract.AbstractCopyTests, Fixtures):
    """`cp` within the server."""


class TestGet(abstract.AbstractGetTests, Fixtures):
    """`get` to this machine."""


class TestPut(abstract.AbstractPutTests, Fixtures):
    """`put` from this machine."""


class TestOpen(abstract.AbstractOpenTests, Fixtures):
    """`open`."""


class TestPipe(abstract.AbstractPipeTests, Fixtures):
    """`pipe`."""
