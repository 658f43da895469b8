"""Keep JSON under names, by GET, PUT and DELETE, in a file: python store.py [PORT [FILE]]

What was kept is there again at the next start.
"""

import json
import os
import sys
import threading
from contextlib import suppress
from pathlib import Path

from fileexport.embed import HttpRequest, HttpResponse, HttpServer


class Store:
    """Values by name. A change that returned is in the file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._values = json.loads(path.read_text("ascii")) if path.exists() else {}

    def all(self) -> dict[str, object]:
        return self._values

    def put(self, name: str, value: object) -> bool:
        """Keep a value; says whether the name is new."""
        with self._lock:
            is_new = name not in self._values
            self._write({**self._values, name: value})
            return is_new

    def remove(self, name: str) -> None:
        """Forget a value, where there is one."""
        with self._lock:
            self._write({other: value for other, value in self._values.items() if other != name})

    def _write(self, values: dict[str, object]) -> None:
        # Under another name first: whenever the power fails, the file holds the old values or the new ones.
        draft = self._path.with_name(f"{self._path.name}.new")
        with draft.open("w", encoding="ascii") as file:
            json.dump(values, file)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self._path)
        self._values = values
        directory = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def answer(request: HttpRequest, response: HttpResponse, store: Store) -> None:
    values, name = store.all(), "/".join(request.path)
    match request.method:
        case "GET" | "HEAD" if not name:
            say(response, 200, values)
        case "GET" | "HEAD" if name in values:
            say(response, 200, values[name])
        case "PUT" if name:
            put(request, response, store, name)
        case "DELETE" if name in values:
            store.remove(name)
            response.status = 204
        case "GET" | "HEAD" | "PUT" | "DELETE":
            say(response, 404, "there is no such name")
        case _:
            response.headers["Allow"] = "GET, HEAD, PUT, DELETE"
            say(response, 405, "only GET, PUT and DELETE are answered here")


def put(request: HttpRequest, response: HttpResponse, store: Store, name: str) -> None:
    try:
        value = json.loads(request.data, parse_constant=refuse)
    except (ValueError, RecursionError):
        say(response, 400, "this is not JSON")
    else:
        say(response, 201 if store.put(name, value) else 200, value)


def say(response: HttpResponse, status: int, value: object) -> None:
    response.status = status
    response.headers["Content-Type"] = "application/json"
    response.data = json.dumps(value)


def refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


if __name__ == "__main__":
    port = int(sys.argv[1]) if sys.argv[1:] else 8000
    store = Store(Path(sys.argv[2] if sys.argv[2:] else "store.json").absolute())
    with suppress(KeyboardInterrupt), HttpServer(port, answer, (store,), block=False) as server:
        print(server.url, flush=True)
        server.join()
