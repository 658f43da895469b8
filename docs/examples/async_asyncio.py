"""The Twisted client in an asyncio program: python async_asyncio.py FILE …

Shows how large remote files are, all asked at once. The server is named by FILEEXPORT_HOSTNAME,
FILEEXPORT_PORT and FILEEXPORT_TOKEN.
"""

import asyncio
import os
import sys

from twisted.internet import asyncioreactor
from twisted.internet.defer import Deferred
from twisted.internet.task import react

from fileexport import AsyncClient


async def main(*paths: str) -> None:
    loop = asyncio.get_running_loop()
    port = int(os.environ.get("FILEEXPORT_PORT", "6768"))
    client = AsyncClient(os.environ["FILEEXPORT_HOSTNAME"], port, os.environ["FILEEXPORT_TOKEN"])
    try:
        for entry in await asyncio.gather(*(client.stat(path).asFuture(loop) for path in paths)):
            print(entry.path, entry.size)
    finally:
        await client.close().asFuture(loop)


if __name__ == "__main__":
    loop = asyncio.new_event_loop()
    asyncioreactor.install(loop)
    react(lambda _: Deferred.fromFuture(loop.create_task(main(*sys.argv[1:]))))
