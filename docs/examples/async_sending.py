"""Send all files of a directory at once, without blocking: python async_sending.py DIRECTORY

The server is named as for the command `fileexport`: by FILEEXPORT_HOSTNAME and FILEEXPORT_TOKEN_FILE.
"""

import os
import sys
from pathlib import Path

from twisted.internet import task
from twisted.internet.defer import Deferred, gatherResults

from fileexport import AsyncClient


async def send(client: AsyncClient, directory: Path) -> None:
    """Send them; say what is there then."""
    await client.make_directory("inbox", "/", exist_ok=True)
    files = [path for path in directory.iterdir() if path.is_file()]
    await gatherResults([client.upload_file(path, "/inbox", replace=True) for path in files])
    async for entry in client.entries("/inbox"):
        print(entry.path, entry.size)


async def main(reactor: object, directory: str) -> None:
    """One connection for everything, closed in the end."""
    token = Path(os.environ["FILEEXPORT_TOKEN_FILE"]).read_text(encoding="ascii").split()[0]
    port = int(os.environ.get("FILEEXPORT_PORT", "6768"))
    async with AsyncClient(os.environ["FILEEXPORT_HOSTNAME"], port, token, reactor=reactor) as client:
        await send(client, Path(directory))


if __name__ == "__main__":
    task.react(lambda reactor, path: Deferred.fromCoroutine(main(reactor, path)), sys.argv[1:])
