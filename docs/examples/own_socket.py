"""Both protocols, with TLS, on a socket of the program's own: python own_socket.py DIRECTORY KEY [PORT]

KEY is the file that `fileexport generate-keys` writes. Clients of the transfer protocol need the token that
FILEEXPORT_TOKEN holds. Ends with Ctrl-C.
"""

import os
import socket
import sys
from contextlib import suppress
from pathlib import Path

from fileexport import Server


def main(directory: str, key: str, port: str = "0") -> None:
    private_key = Path(key).read_text(encoding="ascii")
    server = Server(directory, os.environ["FILEEXPORT_TOKEN"], private_key, http=True)
    with socket.create_server(("127.0.0.1", int(port))) as listening:
        print(f"port {listening.getsockname()[1]}", flush=True)
        server.run(socket=listening)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main(*sys.argv[1:])
