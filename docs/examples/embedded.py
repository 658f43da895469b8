"""Export a directory from within a program: python embedded.py DIRECTORY [PORT]

Clients need the token that FILEEXPORT_TOKEN holds. Ends with Ctrl-C.
"""

import os
import sys
import threading
from contextlib import suppress

from fileexport import Server


def main(directory: str, port: str = "0") -> None:
    server = Server(directory, os.environ["FILEEXPORT_TOKEN"])
    with server.running(int(port)):
        print(f"port {server.port}", flush=True)
        threading.Event().wait()  # here the program does what it is there for


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main(*sys.argv[1:])
