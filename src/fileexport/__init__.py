"""fileexport: one directory, exported to other machines, safely and fast.

What is named here is imported when it is first used, so that a program pays for what it takes.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fileexport.client.blocking import Client as Client
    from fileexport.client.deferred.client import AsyncClient as AsyncClient
    from fileexport.client.remote.files import open as open
    from fileexport.client.remote.path import RemotePath as RemotePath
    from fileexport.client.syncing import SyncProgress as SyncProgress
    from fileexport.client.syncing import SyncResult as SyncResult
    from fileexport.client.syncing import synchronize_download as synchronize_download
    from fileexport.client.syncing import synchronize_upload as synchronize_upload
    from fileexport.client.transfers import download_files as download_files
    from fileexport.client.transfers import upload_files as upload_files
    from fileexport.errors import AuthenticationError as AuthenticationError
    from fileexport.errors import BadRequestError as BadRequestError
    from fileexport.errors import BusyError as BusyError
    from fileexport.errors import ChangedWhileRead as ChangedWhileRead
    from fileexport.errors import CorruptedResponse as CorruptedResponse
    from fileexport.errors import DeletionRefused as DeletionRefused
    from fileexport.errors import DestinationNotFound as DestinationNotFound
    from fileexport.errors import FileExportError as FileExportError
    from fileexport.errors import FileNameError as FileNameError
    from fileexport.errors import OverloadedError as OverloadedError
    from fileexport.errors import SourceNotFound as SourceNotFound
    from fileexport.errors import UnexpectedError as UnexpectedError
    from fileexport.keys import generate_keys as generate_keys
    from fileexport.paths import is_file_name_valid as is_file_name_valid
    from fileexport.server import Server as Server
    from fileexport.tokens import generate_token as generate_token

__version__ = "0.1.0.dev0"

_ROOMS = {
    "client.blocking": ("Client",),
    "client.deferred.client": ("AsyncClient",),
    "client.remote.files": ("open",),
    "client.remote.path": ("RemotePath",),
    "client.syncing": ("SyncProgress", "SyncResult", "synchronize_download", "synchronize_upload"),
    "client.transfers": ("download_files", "upload_files"),
    "errors": (
        "AuthenticationError",
        "BadRequestError",
        "BusyError",
        "ChangedWhileRead",
        "CorruptedResponse",
        "DeletionRefused",
        "DestinationNotFound",
        "FileExportError",
        "FileNameError",
        "OverloadedError",
        "SourceNotFound",
        "UnexpectedError",
    ),
    "keys": ("generate_keys",),
    "paths": ("is_file_name_valid",),
    "server": ("Server",),
    "tokens": ("generate_token",),
}
_ROOM_OF = {name: room for room, names in _ROOMS.items() for name in names}

#: Without `open`: `from fileexport import *` leaves the built-in one where it is.
__all__ = sorted(_ROOM_OF.keys() - {"open"})


def __getattr__(name: str) -> object:
    if name not in _ROOM_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_ROOM_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
