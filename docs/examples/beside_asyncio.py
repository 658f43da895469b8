"""Export a directory beside an asyncio loop: python beside_asyncio.py DIRECTORY [PORT]

Clients need the token that FILEEXPORT_TOKEN holds. Ends with Ctrl-C.
"""

import asyncio
import os
import sys
from contextlib import suppress

from fileexport import Server


async def main(directory: str, port: str = "0") -> None:
    server = Server(directory, os.environ["FILEEXPORT_TOKEN"])
    await asyncio.to_thread(server.start, int(port))
    try:
        print(f"port {server.port}", flush=True)
        await asyncio.Event().wait()  # here the program does what it is there for
    finally:
        server.terminate()
        await asyncio.to_thread(server.join)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(main(*sys.argv[1:]))
