"""`Settings`: options, environment and TOML to one validated, frozen value, all mistakes named at once.

Pure: text comes in, a value and one line for each mistake come out. Whoever calls reads the files and asks
whether what they name exists.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args, get_origin, get_type_hints

import msgspec

from fileexport.addresses import Network
from fileexport.callback_targets import HostPort
from fileexport.option_values import (
    NO_ENDPOINT,
    SHARED_ENDPOINT,
    Anonymous,
    Durability,
    LogFormat,
    Mount,
    NameRule,
    PublicUrl,
    shown,
)
from fileexport.options import ENVIRONMENT_PREFIX, OPTIONS, Option, describe, flag_names
from fileexport.paths import RelPath

__all__ = [
    "DEFAULT_CONFIG",
    "OPTIONS",
    "Anonymous",
    "Durability",
    "LogFormat",
    "Mount",
    "NameRule",
    "Network",
    "Option",
    "PublicUrl",
    "Settings",
    "checked",
    "config_file",
    "describe",
    "flag_names",
    "gather",
]

#: Read where it is present and neither `--config` nor its variable names another file.
DEFAULT_CONFIG = "/etc/fileexport/config.toml"
#: Characters in one value: as many as PATH_MAX has bytes.
MAX_VALUE = 4096
#: Characters of an unknown name that are compared for a hint: difflib takes quadratic time.
_MAX_COMPARED = 64

_BY_NAME = {option.name: option for option in OPTIONS}
_BY_VARIABLE = {option.variable: option for option in OPTIONS}


@dataclass(frozen=True, slots=True)
class Settings:
    """What the daemon was told, one field for each option; `OPTIONS` says what they mean.

    Sizes are bytes. None and the empty tuple mean that nothing was said: see the option's default.
    """

    root: str = ""
    http: tuple[str, ...] = ()
    port: int | None = None
    transfer: tuple[str, ...] = ()
    transfer_port: int | None = None
    dirs: tuple[RelPath, ...] = ()
    token_file: str | None = None
    anonymous: Anonymous = Anonymous.AUTO
    address_filter: tuple[Network, ...] = ()
    max_connections: int | None = None
    file_size_limit: int = 1 << 40
    min_chunk_size: int = 512
    max_chunk_size: int = 1 << 20
    max_concurrent: int = 10_000
    state: str | None = None
    private_key: str | None = None
    public_url: PublicUrl | None = None
    trusted_proxy: tuple[Network, ...] = ()
    hidden: bool = False
    insecure_plaintext: bool = False
    allow_host: tuple[str, ...] = ()
    callback_allow: tuple[HostPort, ...] = ()
    names: NameRule = NameRule.PORTABLE
    durability: Durability = Durability.SAFE
    handlers: tuple[Mount, ...] = ()
    log_file: str | None = None
    log_size: int = 10 << 20
    log_keep: int = 10
    log_format: LogFormat = LogFormat.TEXT
    config: str | None = None

    @property
    def http_off(self) -> bool:
        """Whether the HTTP side is left out; `http` is then ``("none",)``."""
        return NO_ENDPOINT in self.http

    @property
    def transfer_off(self) -> bool:
        """Whether the transfer protocol is left out; `transfer` is then ``("none",)``."""
        return NO_ENDPOINT in self.transfer

    @property
    def transfer_shared(self) -> bool:
        """Whether the HTTP side's listeners answer the transfer protocol too."""
        return SHARED_ENDPOINT in self.transfer

    @property
    def transfer_endpoints(self) -> tuple[str, ...]:
        """The endpoints that `transfer` names for listeners of its own."""
        return tuple(text for text in self.transfer if text not in (NO_ENDPOINT, SHARED_ENDPOINT))


@dataclass(frozen=True, slots=True)
class _Given:
    """What one source says of one option, before it is read; `where` begins a message about it."""

    option: Option
    where: str
    texts: tuple[str, ...]


def gather(
    flags: Mapping[str, Sequence[str] | bool],
    environ: Mapping[str, str],
    toml: str | None,
    toml_source: str,
) -> tuple[Settings, list[str]]:
    """Make one `Settings` of all sources: flag > environment > TOML file > default.

    `flags` holds what was typed, by option name without dashes: the texts of each value in their order (of an
    option that is not repeatable the last one counts), or True; False and nothing mean "not typed". `toml` is
    the text of the file that messages call `toml_source`, or None. A source replaces those below it, also
    for repeatable options, but every source is checked whole.

    Never raises for a mistake of the user: the second value has one printable line for each, and an option
    with a mistake keeps its default.
    """
    problems: list[str] = []
    values: dict[str, Any] = {}
    where: dict[str, str] = {}
    for given in _all_given(flags, environ, toml, toml_source, problems):
        value = _read(given, problems)
        field = given.option.field
        if field not in where:
            where[field] = given.where
            if value is not None:
                values[field] = value
    if "root" not in where:
        problems.append("--root: required; name the directory to export")
    _check_together(values, where, problems)
    return Settings(**values), [_one_line(problem) for problem in problems]


def checked(settings: Settings) -> tuple[Settings, list[str]]:
    """Hold settings that a program has made to the types of their fields, and to the rules for options.

    The second value has one printable line for each mistake, which names the option; that keeps its default.
    """
    defaults, kinds = Settings(), get_type_hints(Settings)
    problems: list[str] = []
    values: dict[str, Any] = {}
    for option in OPTIONS:
        value = getattr(settings, option.field)
        if value == getattr(defaults, option.field):
            continue
        try:
            _check_made(option, value, kinds[option.field])
            values[option.field] = value
        except ValueError as error:
            problems.append(f"--{option.name}: {error}")
    _check_together(values, {option.field: f"--{option.name}" for option in OPTIONS}, problems)
    return Settings(**values), [_one_line(problem) for problem in problems]


def config_file(flags: Mapping[str, Sequence[str] | bool], environ: Mapping[str, str]) -> str | None:
    """The TOML file that flags or environment name; None where they name none, or none that can be opened."""
    for given in (*_from_flags(flags, []), *_from_environment(environ, [])):
        if given.option.field == "config":
            path = _read(given, [])
            return path if isinstance(path, str) else None
    return None


def _all_given(
    flags: Mapping[str, Sequence[str] | bool],
    environ: Mapping[str, str],
    toml: str | None,
    toml_source: str,
    problems: list[str],
) -> Iterator[_Given]:
    """Everything that was said, the strongest source first."""
    yield from _from_flags(flags, problems)
    yield from _from_environment(environ, problems)
    if toml is not None:
        yield from _from_toml(toml, toml_source, problems)


def _from_flags(flags: Mapping[str, Sequence[str] | bool], problems: list[str]) -> Iterator[_Given]:
    for name, value in flags.items():
        option = _option(name)
        if option is None:
            problems.append(f"--{name[:MAX_VALUE]}: no such option{_hint(name, '--')}")
        elif value is True:
            # Only a flag can be True: for the others the empty text is told that a value is missing.
            yield _Given(option, f"--{option.name}", ("true" if option.flag else "",))
        elif value:
            texts = (value,) if isinstance(value, str) else tuple(value)
            yield _Given(option, f"--{option.name}", texts if option.repeatable else texts[-1:])


def _from_environment(environ: Mapping[str, str], problems: list[str]) -> Iterator[_Given]:
    """Read the variables with our prefix; several values are separated by commas, an empty one is unset."""
    for variable, text in environ.items():
        if not variable.startswith(ENVIRONMENT_PREFIX):
            continue
        option = _BY_VARIABLE.get(variable)
        if option is None:
            hint = _hint(variable.removeprefix(ENVIRONMENT_PREFIX).lower(), ENVIRONMENT_PREFIX)
            problems.append(f"{variable[:MAX_VALUE]}: no such option{hint}")
        elif option.repeatable:
            if texts := tuple(part.strip() for part in text.split(",") if part.strip()):
                yield _Given(option, variable, texts)
        elif text:
            yield _Given(option, variable, (text,))


def _from_toml(toml: str, source: str, problems: list[str]) -> Iterator[_Given]:
    try:
        table = msgspec.toml.decode(toml)
    except RecursionError:
        problems.append(f"{source}: lists are nested too deeply")
        return
    except ValueError as error:  # msgspec's own errors are ValueErrors too
        problems.append(f"{source}: this is not TOML: {str(error)[:MAX_VALUE]}")
        return
    seen: set[str] = set()
    for key, value in table.items():
        option = _option(key)
        if option is None:
            problems.append(f"{source}: {shown(key)} is no option{_hint(key, '')}")
        elif option.name == "config":
            problems.append(f"{source}: 'config' does not belong here; a file names no other")
        elif option.name in seen:
            problems.append(f"{source}: '{option.name}' is there twice, with - and with _; keep one")
        else:
            seen.add(option.name)
            yield from _from_toml_value(option, value, f"{source}: {option.name}", problems)


def _from_toml_value(option: Option, value: object, where: str, problems: list[str]) -> Iterator[_Given]:
    if isinstance(value, list) and not option.repeatable:
        problems.append(f"{where}: takes one value, not a list")
        return
    try:
        texts = tuple(_toml_text(option, item) for item in (value if isinstance(value, list) else [value]))
    except ValueError as error:
        problems.append(f"{where}: {error}")
    else:
        yield _Given(option, where, texts)


def _toml_text(option: Option, value: object) -> str:
    """A value of TOML as it would be typed; `ValueError` where it cannot be."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        if option.flag:
            return str(value)
    elif isinstance(value, int):
        # Python refuses to print a number of thousands of digits; TOML has 64 bits.
        if abs(value) >= 2**63:
            raise ValueError("the number is too big")
        return str(value)
    kinds = {bool: "true or false", float: "a fraction", list: "a list", dict: "a table"}
    wanted = "true or false" if option.flag else "text or a number"
    raise ValueError(f"takes {wanted}, not {kinds.get(type(value), 'a date or time')}")


def _read(given: _Given, problems: list[str]) -> object:
    """The value that the texts stand for, or None after naming every mistake in them."""
    read: dict[object, None] = {}  # an ordered set: what is said twice counts once
    before = len(problems)
    for text in given.texts:
        try:
            _check_plain(text)
            read[given.option.parse(text)] = None
        except ValueError as error:
            problems.append(f"{given.where}: {error}")
    if len(problems) > before:
        return None
    return tuple(read) if given.option.repeatable else next(iter(read))


def _check_plain(text: str) -> None:
    """Refuse what no value of any option holds."""
    if not text:
        raise ValueError("needs a value")
    if len(text) > MAX_VALUE:
        raise ValueError(f"the value is longer than {MAX_VALUE} characters")
    if any(c < " " or "\x7f" <= c <= "\x9f" for c in text):
        raise ValueError("the value holds a control character")
    try:
        text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise ValueError("the value is not text") from None


def _check_made(option: Option, value: object, kind: Any) -> None:
    """Refuse a value that a program has made and no text would have."""
    if not _is_of(value, kind):
        found = type(value).__name__
        if isinstance(value, tuple):
            found += f"[{', '.join(sorted({type(one).__name__ for one in value}))}]"
        raise ValueError(f"takes {Settings.__annotations__[option.field]}, not {found}")
    for one in value if isinstance(value, tuple) else (value,):
        if isinstance(one, str | int) and not option.flag:
            _check_plain(str(one))
            option.parse(str(one))


def _is_of(value: object, kind: Any) -> bool:
    if get_origin(kind) is tuple:
        return isinstance(value, tuple) and all(_is_of(one, get_args(kind)[0]) for one in value)
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


def _check_together(values: dict[str, Any], where: Mapping[str, str], problems: list[str]) -> None:
    """The rules between options; a value that breaks one is taken out of `values`."""
    for side, port in (("http", "port"), ("transfer", "transfer_port")):
        _check_side(side, port, values, where, problems)
    if all(NO_ENDPOINT in values.get(side, ()) for side in ("http", "transfer")):
        problems.append(
            f"{where['http']}: '{NO_ENDPOINT}', and {where['transfer']} as well, leave nothing to listen"
        )
        del values["http"], values["transfer"]
    if NO_ENDPOINT in values.get("http", ()) and SHARED_ENDPOINT in values.get("transfer", ()):
        problems.append(
            f"{where['transfer']}: '{SHARED_ENDPOINT}' needs a listener of the HTTP side, and {where['http']}"
            " leaves that out"
        )
        del values["transfer"]
    _check_handlers(values, where, problems)
    low, high = values.get("min_chunk_size"), values.get("max_chunk_size")
    # Each default lies at its end of what is possible: only two values that were given can cross.
    if low is not None and high is not None and low > high:
        problems.append(f"{where['min_chunk_size']}: {low} is more than {where['max_chunk_size']}, {high}")
        del values["min_chunk_size"], values["max_chunk_size"]


def _check_handlers(values: dict[str, Any], where: Mapping[str, str], problems: list[str]) -> None:
    """That each path has one handler, and an HTTP side to be reached by."""
    prefixes = [mount.prefix for mount in values.get("handlers", ())]
    if twice := {prefix for prefix in prefixes if prefixes.count(prefix) > 1}:
        problems.append(f"{where['handlers']}: more than one handler for {', '.join(sorted(twice))}")
        del values["handlers"]
    elif prefixes and NO_ENDPOINT in values.get("http", ()):
        problems.append(f"{where['handlers']}: needs the HTTP side, and {where['http']} leaves that out")
        del values["handlers"]


def _check_side(
    side: str, port: str, values: dict[str, Any], where: Mapping[str, str], problems: list[str]
) -> None:
    """That ``none`` stands alone among the endpoints of a side."""
    endpoints: Iterable[str] = values.get(side, ())
    if NO_ENDPOINT not in endpoints:
        return
    if len(values[side]) > 1:
        problems.append(f"{where[side]}: '{NO_ENDPOINT}' stands alone, or not at all")
        del values[side]
    elif port in values:
        problems.append(f"{where[side]}: '{NO_ENDPOINT}' and {where[port]} contradict each other; keep one")
        del values[side], values[port]


def _option(name: str) -> Option | None:
    """The option of that name, - and _ being the same."""
    return _BY_NAME.get(name.replace("_", "-"))


def _hint(name: str, prefix: str) -> str:
    """``; did you mean …?`` with the nearest name, spelled as `prefix` wants it, or nothing."""
    # Imported late: only a mistake needs it, and every start would wait.
    import difflib

    wanted = name[:_MAX_COMPARED].replace("_", "-")
    matches = difflib.get_close_matches(wanted, list(_BY_NAME))
    if not matches:
        return ""
    # Of equally near names the one that begins alike: people seldom mistype the first letter.
    near = min(matches, key=lambda match: match[0] != wanted[0])
    spelled = _BY_NAME[near].variable if prefix == ENVIRONMENT_PREFIX else prefix + near
    return f"; did you mean '{spelled}'?"


def _one_line(problem: str) -> str:
    """Escape what would not print: a message stays one line and cannot steer a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in problem)
