"""The one table of the daemon's options.

twistd, ``fileexport run``, the environment, the TOML file and the manual are all made from `OPTIONS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fileexport.option_values import (
    Anonymous,
    Durability,
    LogFormat,
    NameRule,
    one_of,
    parse_callback_host,
    parse_chunk_size,
    parse_count,
    parse_directory,
    parse_endpoint,
    parse_flag,
    parse_handler,
    parse_host,
    parse_keep,
    parse_network,
    parse_path,
    parse_port,
    parse_size,
    parse_transfer_endpoint,
    parse_url,
)

#: What every environment variable of the daemon begins with.
ENVIRONMENT_PREFIX = "FILEEXPORT_SERVER_"


@dataclass(frozen=True, slots=True)
class Option:
    """One option of the daemon: a row of the manual, a flag, a variable, a key of the TOML file.

    `meaning` is Markdown of one or two sentences; `describe` gives it as plain text. `default` is the text
    that people read; the value is the default in `fileexport.config.Settings`.
    """

    name: str
    parse: Callable[[str], object]
    default: str
    meaning: str
    metavar: str = ""
    short: str = ""
    aliases: tuple[str, ...] = ()
    repeatable: bool = False
    #: The field's name in `Settings`, where it is not the option's own.
    stored_as: str = ""

    @property
    def field(self) -> str:
        """The name of its field in `Settings`."""
        return self.stored_as or self.name.replace("-", "_")

    @property
    def flag(self) -> bool:
        """Whether it stands without a value on the command line."""
        return self.parse is parse_flag

    @property
    def variable(self) -> str:
        """The name of its environment variable."""
        return ENVIRONMENT_PREFIX + self.name.replace("-", "_").upper()


def flag_names(option: Option) -> tuple[str, ...]:
    """Every spelling on the command line with its dashes: short, long, aliases."""
    short = (f"-{option.short}",) if option.short else ()
    return (*short, f"--{option.name}", *(f"--{alias}" for alias in option.aliases))


def describe(option: Option) -> str:
    """The meaning in plain text for ``--help``, with the default and whether it may be repeated."""
    default = option.default if option.default == "required" else f"default: {option.default}"
    notes = [default] * (not option.flag) + ["repeatable"] * option.repeatable
    text = f"{option.meaning} ({'; '.join(notes)})" if notes else option.meaning
    return text.replace("`", "")


OPTIONS: tuple[Option, ...] = (
    Option("root", parse_path, "required", "The directory that is exported; it must exist.", metavar="DIR"),
    Option(
        "http",
        parse_endpoint,
        "port 9006 on 127.0.0.1, and on ::1 where there is one",
        "Where the HTTP side listens: any Twisted server endpoint (`tcp:`, `ssl:`, `tls:`, `unix:`, "
        "`systemd:`), or `none`.",
        metavar="ENDPOINT",
        repeatable=True,
    ),
    Option(
        "port",
        parse_port,
        "9006",
        "Short for `--http` on that loopback port, 0 for any free one; with `--http`, one listener more.",
        metavar="PORT",
        short="p",
    ),
    Option(
        "transfer",
        parse_transfer_endpoint,
        "port 6768 on 127.0.0.1, and on ::1 where there is one",
        "Where the transfer protocol listens: an endpoint as for `--http`, or `none`, or `shared`, which is "
        "where the HTTP side listens.",
        metavar="ENDPOINT",
        repeatable=True,
    ),
    Option(
        "transfer-port",
        parse_port,
        "6768",
        "Short for `--transfer` on that loopback port, 0 for any free one; with `--transfer`, one listener "
        "more. `fileexport run` and `start` take it as PORT behind the directory.",
        metavar="PORT",
    ),
    Option(
        "dir",
        parse_directory,
        "all",
        "Export only this directory of the root, which must exist and may be nested. Loose files of the root "
        "are then not exported.",
        metavar="NAME",
        repeatable=True,
        stored_as="dirs",
    ),
    Option(
        "token-file",
        parse_path,
        "systemd's credential `token`, else one token is generated and kept in the state directory",
        "The tokens that are let in, one a line, in a file of mode 0600; SIGHUP reads it again.",
        metavar="FILE",
    ),
    Option(
        "anonymous",
        one_of(Anonymous),
        "auto",
        "What an HTTP client without a token may do. `auto`: on loopback, local processes may read and those "
        "of the daemon's own user may also change things; elsewhere nothing.",
        metavar="auto|none|read|all",
    ),
    Option(
        "address-filter",
        parse_network,
        "any",
        "Accept connections from this address or CIDR network only; all others are closed at once.",
        metavar="NET",
        aliases=("address_filter",),
        repeatable=True,
    ),
    Option(
        "max-connections",
        parse_count,
        "unlimited",
        "Accept this many connections in total, filtered ones not counted, then finish them and exit with 0.",
        metavar="N",
        aliases=("max_connections",),
    ),
    Option(
        "file-size-limit",
        parse_size,
        "1T",
        "The largest file in bytes that the transfer protocol takes.",
        metavar="SIZE",
    ),
    Option(
        "min-chunk-size",
        parse_chunk_size,
        "512",
        "The smallest chunk in bytes, 512 or more, that a client of the transfer protocol may choose.",
        metavar="SIZE",
    ),
    Option(
        "max-chunk-size",
        parse_chunk_size,
        "1M",
        "The largest chunk in bytes, 1M or less, that travels in one piece over the transfer protocol.",
        metavar="SIZE",
    ),
    Option(
        "max-concurrent", parse_count, "10000", "Connections that may be open at the same time.", metavar="N"
    ),
    Option(
        "state",
        parse_path,
        "$STATE_DIRECTORY, else below $XDG_STATE_HOME/fileexport",
        "The directory of the daemon's own data, such as the generated token; outside the root by default.",
        metavar="DIR",
    ),
    Option(
        "private-key",
        parse_path,
        "none",
        "PEM file with key and certificate: every listener speaks TLS with it, `unix:` and those already TLS "
        "excepted. SIGHUP reads it again.",
        metavar="FILE",
    ),
    Option(
        "public-url",
        parse_url,
        "none",
        "How the world sees the HTTP side behind a reverse proxy: the Host and Origin that are accepted, and "
        "the prefix of links.",
        metavar="URL",
    ),
    Option(
        "trusted-proxy",
        parse_network,
        "none",
        "A proxy whose forwarded address counts for log, filter and limits; it is never taken for local.",
        metavar="NET",
        repeatable=True,
    ),
    Option("hidden", parse_flag, "off", "Let HTTP clients without a token see names that begin with a dot."),
    Option(
        "insecure-plaintext",
        parse_flag,
        "off",
        "Allow a listener outside loopback without TLS; without this option such a start is refused.",
    ),
    Option(
        "allow-host",
        parse_host,
        "addresses, localhost, this machine's host name",
        "One more host name, without a port, that HTTP requests may carry.",
        metavar="NAME",
        repeatable=True,
    ),
    Option(
        "callback-allow",
        parse_callback_host,
        "the requester's own address",
        "One more host that a job's callback may go to, at any port or at this one.",
        metavar="HOST[:PORT]",
        repeatable=True,
    ),
    Option(
        "names",
        one_of(NameRule),
        "portable",
        "Which names may be created: those that every system can hold, or all that this file system takes.",
        metavar="portable|posix",
    ),
    Option(
        "durability",
        one_of(Durability),
        "safe",
        "`fast` leaves out flushes to the disk: what is acknowledged survives kill -9, but not power loss.",
        metavar="safe|fast",
    ),
    Option(
        "handler",
        parse_handler,
        "none",
        "Mount a request handler of your own, a function of a Python module, at this path and below; the "
        "current directory is searched for the module, unless it is exported.",
        metavar="PREFIX=MODULE:FUNCTION",
        repeatable=True,
        stored_as="handlers",
    ),
    Option(
        "log-file", parse_path, "stderr", "Where the log is written; SIGHUP opens it again.", metavar="FILE"
    ),
    Option(
        "log-size",
        parse_size,
        "10M",
        "The size in bytes at which the log file is rotated; the newest old one is `FILE.1`.",
        metavar="SIZE",
    ),
    Option("log-keep", parse_keep, "10", "How many old log files are kept.", metavar="N"),
    Option(
        "log-format",
        one_of(LogFormat),
        "text",
        "Lines for people, or one JSON object a line.",
        metavar="text|json",
    ),
    Option(
        "config",
        parse_path,
        "/etc/fileexport/config.toml where present",
        "A TOML file with the same options; flags and environment variables override it.",
        metavar="FILE",
    ),
)
