"""`fileexport.client.environment`: from variables to the parameters of a client."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from fileexport.client.environment import client_of_environment, read_token, settings_of_environment

LEAST = {"FILEEXPORT_HOSTNAME": "h", "FILEEXPORT_TOKEN": "t" * 8}
DEFAULTS: dict[str, Any] = {
    "hostname": "h",
    "port": 6768,
    "token": "t" * 8,
    **dict.fromkeys(("public_key", "ca_file", "tls")),
}


class SettingsTests(SynchronousTestCase):
    """The parameters of `Client`."""

    def wrong(self, variable: str, environ: dict[str, str], **given: Any) -> None:
        """It is refused by a sentence that names the variable, and shows no token."""
        error = self.assertRaises(ValueError, settings_of_environment, environ, **given)
        self.assertIn(variable, str(error))
        self.assertNotIn("t" * 8, str(error))

    def test_defaults(self) -> None:
        """A host and a token are enough; empty variables are as if they were not there."""
        self.assertEqual(settings_of_environment(LEAST), DEFAULTS)
        empty = {"PORT": "", "PUBLIC_KEY": "", "CA_FILE": "", "TLS": "", "TOKEN_FILE": ""}
        found = settings_of_environment(
            LEAST | {f"FILEEXPORT_{name}": value for name, value in empty.items()}
        )
        self.assertEqual(found, DEFAULTS)

    def test_environment(self) -> None:
        """Each variable is read."""
        environ = {
            **LEAST,
            "FILEEXPORT_PORT": "70",
            "FILEEXPORT_PUBLIC_KEY": "sha256/x",
            "FILEEXPORT_CA_FILE": "/ca",
            "FILEEXPORT_TLS": "1",
        }
        expected = {**DEFAULTS, "port": 70, "public_key": "sha256/x", "ca_file": "/ca", "tls": True}
        self.assertEqual(settings_of_environment(environ), expected)

    def test_given(self) -> None:
        """What is given comes first, and nothing is needed of the environment then; the rest is passed on."""
        given = {**DEFAULTS, "hostname": "o", "port": 71, "tls": False, "timeout": 5}
        environ = {"FILEEXPORT_HOSTNAME": "h", "FILEEXPORT_PORT": "70", "FILEEXPORT_TLS": "1"}
        self.assertEqual(settings_of_environment(environ, **given), given)
        self.assertEqual(settings_of_environment({}, **given), given)

    def test_given_security(self) -> None:
        """What is given of key, authority and TLS replaces all that the environment says of them."""
        environ = LEAST | {f"FILEEXPORT_{name}": "0" for name in ("PUBLIC_KEY", "CA_FILE", "TLS")}
        choices: tuple[dict[str, Any], ...] = (
            {"public_key": "sha256/x"},
            {"ca_file": "/ca"},
            {"tls": True},
            {"tls": False},
        )
        for given in choices:
            found = settings_of_environment(environ, **given)
            self.assertEqual(found, DEFAULTS | given)

    def test_switch(self) -> None:
        """FILEEXPORT_TLS is a yes or a no."""
        found = [
            settings_of_environment({**LEAST, "FILEEXPORT_TLS": value})["tls"]
            for value in ("1", "yes", " On ", "0", "off", "false")
        ]
        self.assertEqual(found, [True] * 3 + [False] * 3)
        self.wrong("FILEEXPORT_TLS", {**LEAST, "FILEEXPORT_TLS": "maybe"})

    def test_wrong(self) -> None:
        """What is missing, or is no port, is said with the variable to be set."""
        self.wrong("set FILEEXPORT_HOSTNAME", {**LEAST, "FILEEXPORT_HOSTNAME": ""})
        self.wrong("set FILEEXPORT_TOKEN", {"FILEEXPORT_HOSTNAME": "h"})
        for port in ("0", "65536", "http", "-1", "1 2", "９", "1" * 5000):
            self.wrong("FILEEXPORT_PORT", {**LEAST, "FILEEXPORT_PORT": port})
        for number in (0, -1, 65536, "x"):
            self.wrong(f"65535, not '{number}'", LEAST, port=number)


class ClientTests(SynchronousTestCase):
    """The client of an environment."""

    def setUp(self) -> None:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("FILEEXPORT_")}
        self.patch(os, "environ", {**kept, **LEAST, "FILEEXPORT_PORT": "70"})

    def server(self, hostname: str | None = None, port: int | None = None) -> tuple[str, int]:
        """Where the client of these goes."""
        server = client_of_environment(hostname, port)._pool.server
        return server.hostname, server.port

    def test_server(self) -> None:
        """The environment's port is that of its host, and of no other one."""
        self.assertEqual(self.server(), ("h", 70))
        self.assertEqual(self.server("o"), ("o", 6768))
        self.assertEqual(self.server("o", 71), ("o", 71))
        self.assertEqual(self.server(port=71), ("h", 71))

    def test_advice(self) -> None:
        """Where only TLS would do, the variables are named that say so."""
        security = client_of_environment()._pool.server.security
        error = self.assertRaises(ValueError, security.check_address, "192.0.2.1")
        for name in ("FILEEXPORT_PUBLIC_KEY", "FILEEXPORT_CA_FILE", "FILEEXPORT_TLS=0"):
            self.assertIn(name, str(error))


class TokenFileTests(SynchronousTestCase):
    """FILEEXPORT_TOKEN_FILE."""

    def setUp(self) -> None:
        self.path = Path(self.mktemp())

    def read(self, content: str, mode: int = 0o600) -> str:
        """The token of a file."""
        self.path.write_text(content)
        self.path.chmod(mode)
        return read_token({"FILEEXPORT_TOKEN_FILE": str(self.path)})

    def wrong(self, message: str, content: str, mode: int = 0o600) -> None:
        """The file is refused; nothing of it is shown."""
        error = self.assertRaises(ValueError, self.read, content, mode)
        self.assertIn(message, str(error))
        self.assertNotIn("secret", str(error))

    def test_read(self) -> None:
        """The first word that is no comment; the daemon's own token file will do."""
        self.assertEqual(self.read("# mine\n\n secret-token name=x may=read\nother\n"), "secret-token")
        self.assertEqual(self.read("secret-token"), "secret-token")

    def test_environment_first(self) -> None:
        """FILEEXPORT_TOKEN comes before its file, which is not read then."""
        environ = {"FILEEXPORT_TOKEN": "mine-mine", "FILEEXPORT_TOKEN_FILE": "/none"}
        self.assertEqual(read_token(environ), "mine-mine")

    def test_mode(self) -> None:
        """A file that others can read or write is refused."""
        for mode in (0o644, 0o640, 0o620, 0o602):
            self.wrong("chmod 600", "secret-token", mode)

    def test_wrong(self) -> None:
        """No file, no token in it, only a stored form of one."""
        self.wrong("holds no token", "# secret\n\n")
        self.wrong("stored form", "fex1:secret:a:b")
        self.path.unlink()
        error = self.assertRaises(ValueError, read_token, {"FILEEXPORT_TOKEN_FILE": str(self.path)})
        self.assertIn("cannot be read: No such file", str(error))
