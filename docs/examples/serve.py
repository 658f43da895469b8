"""Serve the files below the current directory: python serve.py [PORT]"""

import sys
from contextlib import suppress

from fileexport.embed import HttpServer

if __name__ == "__main__":
    port = int(sys.argv[1]) if sys.argv[1:] else 8000
    with suppress(KeyboardInterrupt), HttpServer(port, block=False) as server:
        print(server.url, flush=True)
        server.join()
