"""A start from settings that a program has made."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path
from typing import Any

from fileexport.config import Settings
from fileexport.endpoints import TlsContext
from fileexport.errors import ConfigurationError
from fileexport.keys import generate_keys
from fileexport.startup import Prepared, is_inside, prepare, prepare_settings, temporary_state
from fileexport.tokens import Right
from tests.test_startup import NOW, TOKEN, Case


class SettingsTests(Case):
    """`prepare_settings` and the state of one run."""

    def test_settings(self) -> None:
        """Neither variables nor a file of options are read; the state lies where the daemon's would."""
        self.environ["FILEEXPORT_SERVER_PORT"] = "nonsense"
        self.environ["FILEEXPORT_SERVER_CONFIG"] = str(self.base / "none")
        prepared = prepare_settings(Settings(root=str(self.root)), self.environ)
        self.assertIsNone(prepared.settings.port)
        self.assertTrue(prepared.generated)
        self.assertEqual(prepared.state, self.prepare_plain().state)

    def prepare_plain(self) -> Prepared:
        """What the daemon makes of the root alone."""
        return prepare({"root": [str(self.root)]}, {"HOME": self.environ["HOME"]})

    def test_given(self) -> None:
        """A token and a key may be given themselves; no file is read or made for them."""
        state = self.directory("state", 0o700)
        tls = TlsContext(generate_keys()[1])
        settings = Settings(root=str(self.root), state=str(state))
        prepared = prepare_settings(settings, {}, TOKEN, tls)
        self.assertIs(prepared.tls, tls)
        self.assertFalse(prepared.generated)
        found = prepared.tokens.find(TOKEN, NOW)
        self.assertEqual(found and found.rights, Right.ALL)
        self.assertEqual(os.listdir(state), [])

    def test_mistakes(self) -> None:
        """What the settings contradict, and what they name that is not there, is named at once."""
        none = str(self.base / "none")
        settings = Settings(root=none, token_file=none, min_chunk_size=2048, max_chunk_size=1024)
        error = self.assertRaises(ConfigurationError, prepare_settings, settings, self.environ, "short")
        self.assertEqual(len(error.problems), 4, error.problems)
        error = self.assertRaises(ConfigurationError, prepare_settings, Settings(), self.environ)
        self.assertEqual(error.problems, ("--root: required; name the directory to export",))

    def test_wrong_types(self) -> None:
        """Values that no option has are named with all else; what is right beside them is looked at."""
        made: dict[str, Any] = {"http": "tcp:8080", "handlers": ("/a=b:c",), "transfer_port": 99999}
        settings = Settings(root=str(self.base / "none"), **made)
        error = self.assertRaises(ConfigurationError, prepare_settings, settings, self.environ)
        self.assertEqual(
            [line.partition(":")[0] for line in sorted(error.problems)],
            ["--handler", "--http", "--root", "--transfer-port"],
        )
        wrong: Any = self.root
        error = self.assertRaises(ConfigurationError, prepare_settings, Settings(root=wrong), self.environ)
        self.assertEqual(error.problems, ("--root: takes str, not PosixPath",))

    def test_temporary_state(self) -> None:
        """A temporary state is nobody else's to read, lies outside of the root, and goes."""
        with temporary_state(str(self.root)) as state:
            self.assertEqual(stat.S_IMODE(os.stat(state).st_mode), 0o700)
            with temporary_state(tempfile.gettempdir()) as other:
                self.assertFalse(is_inside(Path(other), tempfile.gettempdir()))
        self.assertFalse(os.path.exists(state) or os.path.exists(other))
