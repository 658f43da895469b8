"""Serve the files below the current directory: python serve.py [PORT]"""

import resource
import sys
from contextlib import suppress

from fileexport.embed import HttpServer


def main(port: str = "8000") -> None:
    # Each client takes a descriptor, and another while a large file is on its way to it.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with suppress(KeyboardInterrupt), HttpServer(int(port), block=False) as server:
        print(server.url, flush=True)
        server.join()


if __name__ == "__main__":
    try:
        main(*sys.argv[1:2])
    except (RuntimeError, ValueError) as error:
        sys.exit(str(error))
