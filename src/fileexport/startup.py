"""What a start needs from the machine: the files that the settings name, and the state directory.

Everything that can be wrong is found here, before anything listens, and all of it is named at once.
"""

from __future__ import annotations

import errno
import hashlib
import importlib.util
import operator
import os
import secrets
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fileexport.config import DEFAULT_CONFIG, Mount, Settings, checked, config_file, gather
from fileexport.disk.jail import Jail, View
from fileexport.endpoints import TlsContext
from fileexport.errors import ConfigurationError
from fileexport.token_file import parse_token_file
from fileexport.tokens import TokenTable, generate_token
from fileexport.web.handlers import check_handler
from fileexport.web.routes import OWN_NAMES

#: Bytes of a file that is read whole at start: configuration, tokens, key.
MAX_FILE = 1 << 20
#: Characters of the root's name in that of its state directory: at most four bytes each, of 255.
_SHOWN = 50
_TOKEN_FILE = "token"
#: Where temporary files may lie, too.
_OTHER_TEMPORARY = ("/var/tmp", "/dev/shm")


@dataclass(frozen=True, slots=True)
class Prepared:
    """All that was read.

    - `tokens`: those of the tokens' file and the one that was `given` on the command line, together.
    - `token_path` names that file; None where the given token stands alone. `generated` says that we made
      it, `credential` that systemd handed it over.
    - `tls` is `--private-key`'s.
    - `handlers`: the functions of the settings' handlers, imported, by the path where each is mounted.
    """

    settings: Settings
    state: Path
    tokens: TokenTable
    token_path: Path | None
    generated: bool
    credential: bool
    tls: TlsContext | None
    given: TokenTable
    handlers: Mapping[str, Callable[..., object]]

    def token(self) -> str:
        """The generated token itself, for a person at a terminal; only where one was generated."""
        words = _read(self.token_path).split() if self.token_path else []
        return words[0] if words else "(its file is empty: remove it, and a new one is made)"

    @property
    def where_tokens_are(self) -> str:
        """For the banner: where the tokens can be seen, ``see FILE``."""
        words = ["the one that was given"] * bool(len(self.given))
        return ", or ".join(words + ([f"see {self.token_path}"] if self.token_path else []))

    def read_tokens(self) -> TokenTable:
        """The tokens as their file has them now, and the given one. Raises `ConfigurationError`."""
        if self.token_path is None:
            return self.given
        return read_tokens(self.token_path, credential=self.credential).joined(self.given)


def read_settings(
    flags: Mapping[str, Sequence[str] | bool], environ: Mapping[str, str]
) -> tuple[Settings, list[str]]:
    """Gather the settings from flags, environment and the TOML file; with one line for each mistake."""
    named = config_file(flags, environ)
    source = named or DEFAULT_CONFIG
    text, unread = None, None
    try:
        text = _read(Path(source))
    except FileNotFoundError as error:
        unread = f"--config: {source}: {error.strerror}" if named else None
    except (OSError, UnicodeDecodeError) as error:
        unread = f"--config: {source}: {_why(error)}"
    settings, problems = gather(flags, environ, text, source)
    return settings, problems + ([unread] if unread else [])


def prepare(
    flags: Mapping[str, Sequence[str] | bool], environ: Mapping[str, str], token: str | None = None
) -> Prepared:
    """Read everything that a start needs; makes the state directory and, where none is given, a token.

    `token` is one that was typed: it may do everything, beside those of a token file. Raises
    `ConfigurationError` with all mistakes; the generated token may exist then, nothing else.
    """
    settings, problems = read_settings(flags, environ)
    return _prepare(settings, problems, environ, token, None, is_ours=True)


def prepare_settings(
    settings: Settings,
    environ: Mapping[str, str],
    token: str | None = None,
    tls: TlsContext | None = None,
) -> Prepared:
    """Do the same for settings that a program has made: neither options nor a TOML file are read.

    Of `environ` only the directories for a state count, and systemd's credentials. `tls` is used in the
    place of `settings.private_key`, which names a file. Raises as `prepare` does.
    """
    known, problems = checked(settings)
    if settings.root == "":
        problems.append("--root: required; name the directory to export")
    return _prepare(known, problems, environ, token, tls, is_ours=False)


def _prepare(
    settings: Settings,
    problems: list[str],
    environ: Mapping[str, str],
    token: str | None,
    tls: TlsContext | None,
    *,
    is_ours: bool,
) -> Prepared:
    """`is_ours`: the process is, so that we say where its modules come from."""
    if settings.root:
        _check_root(settings, problems)
    tls = tls or _tls(settings, problems)
    given = _given(token, problems)
    with _importable_here(settings) if is_ours else nullcontext(True) as here:
        handlers = _handlers(settings, problems, here=here)
    credential = None if settings.token_file else _credential(environ)
    named = settings.token_file or credential
    tokens = TokenTable()
    if named is not None:
        source = "the credential 'token'" if credential else "--token-file"
        tokens = _tokens(Path(named), source, problems, credential=credential is not None)
    _stop_at(problems)
    state = _state_path(settings, environ)
    _check_secrets(settings, state, problems)
    _stop_at(problems)
    _make_state(state)
    generated = named is None and token is None
    path = Path(named).absolute() if named else None
    if generated:
        path = state / _TOKEN_FILE
        _generate(path)
        tokens = _tokens(path, "the generated token", problems)
    _stop_at(problems)
    tokens = tokens.joined(given)
    is_credential = credential is not None
    return Prepared(_absolute(settings), state, tokens, path, generated, is_credential, tls, given, handlers)


def _stop_at(problems: Sequence[str]) -> None:
    if problems:
        raise ConfigurationError(*problems)


def read_tokens(path: Path, *, credential: bool = False) -> TokenTable:
    """Read a token file again; `credential`: it is systemd's. Raises `ConfigurationError`."""
    problems: list[str] = []
    tokens = _tokens(path, "the token file", problems, credential=credential)
    _stop_at(problems)
    return tokens


def reload_key(tls: TlsContext, path: str) -> None:
    """Read a private key again. Raises `ConfigurationError`; the old one stays then."""
    try:
        tls.reload(_read(Path(path)))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"--private-key: {path}: {_why(error)}") from None


def is_public(root: str) -> bool:
    """Whether every user of this machine can read the directory: it and all above it let others in."""
    path = Path(root).resolve()
    if path.stat().st_mode & 0o005 != 0o005:
        return False
    return all(above.stat().st_mode & 0o001 for above in path.parents)


def is_inside(path: Path, root: str) -> bool:
    """Whether a path lies in the exported root, links resolved."""
    return path.resolve().is_relative_to(Path(root).resolve())


def _check_secrets(settings: Settings, state: Path, problems: list[str]) -> None:
    """Refuse secrets of the daemon's that lie where it exports: every reader could take them."""
    secrets = {
        "--state": str(state),
        "--token-file": settings.token_file,
        "--private-key": settings.private_key,
    }
    for option, path in secrets.items():
        if path and _is_exported(Path(path), settings):
            problems.append(f"{option}: {path} lies in what is exported: move it, or choose with --dir")


def _is_exported(path: Path, settings: Settings) -> bool:
    """Whether a path lies in what is exported."""
    exported = [os.path.join(settings.root, *directory) for directory in settings.dirs] or [settings.root]
    return any(is_inside(path, directory) for directory in exported)


def _absolute(settings: Settings) -> Settings:
    """Paths as they are after a daemon has changed its directory."""
    # Not abspath: of `link/..` it makes another directory than the one that was checked.
    paths: dict[str, Any] = {"root": str(Path(settings.root).resolve())}
    for field in ("token_file", "private_key", "log_file"):
        if path := getattr(settings, field):
            paths[field] = str(Path(path).absolute())
    return replace(settings, **paths)


class _OthersCanRead(Exception):
    """A file that must be its owner's alone is not."""


def _read(path: Path, *, others: int = 0) -> str:
    """The text of a file; raises `_OthersCanRead` where its mode has one of the bits `others`."""
    # A FIFO must not hold up the daemon, which reads again while it serves.
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        # Of what is read, not of what has the name a moment before.
        mode = os.fstat(file.fileno()).st_mode
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "not a regular file")
        if mode & others:
            raise _OthersCanRead
        data = file.read(MAX_FILE + 1)
    if len(data) > MAX_FILE:
        raise OSError(errno.EFBIG, f"larger than {MAX_FILE} bytes")
    return data.decode("utf-8")


def _check_root(settings: Settings, problems: list[str]) -> None:
    try:
        jail = Jail(settings.root)
    except OSError as error:
        problems.append(f"--root: {settings.root}: {error.strerror}")
        return
    for directory in settings.dirs:
        try:
            with jail.open(View(), directory) as opened:
                if not opened.is_directory:
                    problems.append(f"--dir: {str(directory)[1:]}: Not a directory")
        except OSError as error:
            problems.append(f"--dir: {str(directory)[1:]}: {error.strerror} (below {settings.root})")
    jail.close()


def _tls(settings: Settings, problems: list[str]) -> TlsContext | None:
    if settings.private_key is None:
        return None
    try:
        return TlsContext(_read(Path(settings.private_key)))
    except (OSError, UnicodeDecodeError) as error:
        problems.append(f"--private-key: {settings.private_key}: {_why(error)}")
    except ConfigurationError as error:
        problems.append(f"--private-key: {settings.private_key}: {error}")
    return None


def _handlers(settings: Settings, problems: list[str], *, here: bool) -> dict[str, Callable[..., object]]:
    """Import the handlers of an application's own, by the path where each is mounted.

    `here`: modules may come from the current directory.
    """
    found = {}
    for mount in settings.handlers:
        if mount.prefix.split("/")[1] in OWN_NAMES:
            problems.append(f"--handler {mount}: the daemon has that path itself; choose another")
            continue
        try:
            _check_origin(mount.module, settings)
            found[mount.prefix] = _imported(mount)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # a module may even try to end the process
            why = " ".join(f"{type(error).__name__}: {error}".split())
            if isinstance(error, ModuleNotFoundError) and not here:
                why += "; nothing is imported from the current directory, which is exported"
            problems.append(f"--handler {mount}: {why}")
    return found


def _check_origin(module: str, settings: Settings) -> None:
    """Refuse a module that lies in what is exported, whichever way it is found, before its code runs.

    Whoever may write there would be the author of our code. Raises ImportError.
    """
    names = module.split(".")
    for count in range(1, len(names) + 1):
        name = ".".join(names[:count])
        if name in sys.modules:
            origin = getattr(sys.modules[name], "__file__", None)
        else:
            # This imports the packages that it lies in, which were looked at in the rounds before.
            spec = importlib.util.find_spec(name)
            origin = spec.origin if spec is not None and spec.has_location else None
        if origin and settings.root and _is_exported(Path(origin), settings):
            raise ImportError(f"{origin} lies in what is exported, where others may write: move it")


def _imported(mount: Mount) -> Callable[..., object]:
    """The function of a mount. Raises whatever importing its module does, AttributeError and ValueError."""
    module = importlib.import_module(mount.module)
    handler: Callable[..., object] = operator.attrgetter(mount.function)(module)
    check_handler(handler)
    return handler


@contextmanager
def _importable_here(settings: Settings) -> Iterator[bool]:
    """Look for modules in the current directory first, and from then on where nothing else has them.

    Not in one that is exported, as is said then.
    """
    here = os.getcwd() if settings.handlers else ""
    if here and settings.root and _is_exported(Path(here), settings):
        yield False
        return
    if not here or here in sys.path:
        yield True
        return
    sys.path.insert(0, here)
    try:
        yield True
    finally:
        with suppress(ValueError):
            sys.path.remove(here)
        sys.path.append(here)


def _given(token: str | None, problems: list[str]) -> TokenTable:
    """The table of the token that was typed, if one was."""
    try:
        return TokenTable() if token is None else TokenTable.of(token, "given", "TOKEN")
    except ValueError as error:
        problems.append(f"TOKEN: {error}")
    return TokenTable()


def _why(error: OSError | UnicodeDecodeError) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else "not UTF-8"


def _credential(environ: Mapping[str, str]) -> str | None:
    """The token file that systemd hands over (`LoadCredential=token`), or None where it has none."""
    path = os.path.join(environ.get("CREDENTIALS_DIRECTORY", ""), _TOKEN_FILE)
    return path if os.path.isabs(path) and os.path.lexists(path) else None


def _tokens(path: Path, option: str, problems: list[str], *, credential: bool = False) -> TokenTable:
    # Somebody may have given the token itself in the place of its file.
    shown = "this value" if "fex1_" in path.name else str(path)
    # systemd lets the daemon read a credential by an ACL, whose mask stands where the group's bits are.
    others = 0o037 if credential else 0o077
    try:
        return parse_token_file(_read(path, others=others), shown)
    except _OthersCanRead:
        problems.append(f"{option}: {shown}: others can read it; run: chmod 600 {shown}")
    except (OSError, UnicodeDecodeError) as error:
        problems.append(f"{option}: {shown}: {_why(error)}")
    except ConfigurationError as error:
        problems.extend(error.problems)
    return TokenTable()


# -- the state directory


@contextmanager
def temporary_state(root: str) -> Iterator[str]:
    """A state directory outside `root` for one run: new, mode 0700, removed at the end. Raises OSError."""
    usual = tempfile.gettempdir()
    homes = [home for home in (usual, *_OTHER_TEMPORARY) if not is_inside(Path(home), root)]
    with tempfile.TemporaryDirectory(
        prefix="fileexport-", dir=homes[0] if homes else usual, ignore_cleanup_errors=True
    ) as path:
        yield path


def _make_state(path: Path) -> None:
    """Make the state directory, mode 0700. Raises `ConfigurationError`."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        owner = path.stat().st_uid
    except OSError as error:
        raise ConfigurationError(f"--state: {path}: {error.strerror}; give --state DIR") from None
    if owner != os.geteuid():
        raise ConfigurationError(f"--state: {path}: belongs to another user; give --state DIR")


def _state_path(settings: Settings, environ: Mapping[str, str]) -> Path:
    if settings.state is not None:
        return Path(settings.state).absolute()
    if directory := environ.get("STATE_DIRECTORY", "").partition(":")[0]:
        path = Path(directory).absolute()
        if not is_inside(path, settings.root):
            return path
    root = Path(settings.root).resolve()
    # One for each root, so that two daemons of one user do not share a token.
    name = f"{root.name[:_SHOWN] or 'root'}-{hashlib.sha256(os.fsencode(root)).hexdigest()[:12]}"
    for candidate in _state_homes(environ):
        if not is_inside(candidate, settings.root):
            return candidate / "fileexport" / name
    raise ConfigurationError(f"--state: name a directory; all usual ones lie inside the root {settings.root}")


def _state_homes(environ: Mapping[str, str]) -> list[Path]:
    homes = [environ.get("XDG_STATE_HOME", "")]
    if home := environ.get("HOME", ""):
        homes.append(f"{home}/.local/state")
    homes.append("/var/lib" if os.geteuid() == 0 else f"/run/user/{os.geteuid()}")
    return [Path(text) for text in homes if text.startswith("/")]


def _generate(path: Path) -> None:
    """Write a new token, unless there is one. Raises `ConfigurationError`."""
    draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    try:
        if path.exists():
            return
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "w") as file:
                file.write(generate_token() + " name=generated\n")
                file.flush()
                os.fsync(file.fileno())
            # A link refuses an existing name: of two daemons that start at once both use the first's token.
            os.link(draft, path)
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    except OSError as error:
        raise ConfigurationError(f"--state: {path}: {error.strerror}") from None
