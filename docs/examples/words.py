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


if __name__ == "__main__":
    port = int(sys.argv[1]) if sys.argv[1:] else 8000
    with suppress(KeyboardInterrupt), HttpServer(port, answer, block=False) as server:
        print(server.url, flush=True)
        server.join()
