"""How much lies below a remote directory, asked without blocking: python async_client.py DIRECTORY"""

import os
import sys

from twisted.internet import task
from twisted.internet.defer import Deferred

from fileexport import AsyncClient


async def size_below(client: AsyncClient, directory: str) -> int:
    """The bytes of all files in a directory and below it."""
    return sum([entry.size async for entry in client.entries(directory, recursive=True)])


async def main(reactor: object, directory: str) -> None:
    """Ask, and close."""
    host, port = os.environ["FILEEXPORT_HOSTNAME"], int(os.environ.get("FILEEXPORT_PORT", "6768"))
    async with AsyncClient(host, port, os.environ["FILEEXPORT_TOKEN"], reactor=reactor) as client:
        print(await size_below(client, directory), "bytes")


if __name__ == "__main__":
    task.react(lambda reactor, directory: Deferred.fromCoroutine(main(reactor, directory)), sys.argv[1:])
