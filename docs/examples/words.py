"""Answer two words, and 404 to everything else: python words.py [PORT]"""

import sys
from contextlib import suppress

from fileexport.embed import HttpRequest, HttpResponse, HttpServer

WORDS = {"hello": "world", "ping": "pong"}


def answer(request: HttpRequest, response: HttpResponse) -> None:
    match request.path:
        case [word] if word in WORDS:
            response.data = WORDS[word]
        case _:
            response.status = 404
            response.data = "there is no such word"


def main(port: str = "8000") -> None:
    with suppress(KeyboardInterrupt), HttpServer(int(port), answer, block=False) as server:
        print(server.url, flush=True)
        server.join()


if __name__ == "__main__":
    try:
        main(*sys.argv[1:2])
    except (RuntimeError, ValueError) as error:
        sys.exit(str(error))
