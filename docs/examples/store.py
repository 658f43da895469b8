"""Keep JSON under names, by GET, PUT and DELETE, in a file: python store.py [PORT [FILE]]

What was kept is there again at the next start. FILE belongs to one program at a time.
"""

import fcntl
import json
import os
import sys
import threading
from contextlib import suppress
from pathlib import Path

from fileexport.embed import HttpRequest, HttpResponse, HttpServer


class Store:
    """Values by name. A change that returned is in the file.

    Raises OSError or ValueError for a file that cannot be used, or that another program uses.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        # Of a file beside it, which no change replaces. However the program ends, its lock ends with it.
        self._claim = path.with_name(f"{path.name}.lock").open("w")
        try:
            fcntl.flock(self._claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"another program keeps its values in {path}") from None
        self._values = read(path)

    def all(self) -> dict[str, object]:
        return self._values

    def put(self, name: str, value: object) -> bool:
        """Keep a value; says whether the name is new. Raises as `encode` does, and nothing changes then."""
        with self._lock:
            is_new = name not in self._values
            self._write({**self._values, name: value})
            return is_new

    def remove(self, name: str) -> None:
        """Forget a value, where there is one."""
        with self._lock:
            self._write({other: value for other, value in self._values.items() if other != name})

    def _write(self, values: dict[str, object]) -> None:
        text = encode(values)
        # Under another name first: whenever the power fails, the file holds the old values or the new ones.
        draft = self._path.with_name(f"{self._path.name}.new")
        with draft.open("w", encoding="ascii") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self._path)
        self._values = values
        directory = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def read(path: Path) -> dict[str, object]:
    """The values in a file; none where there is no file yet. Raises ValueError for anything else."""
    try:
        values = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        raise ValueError(f"{path} does not hold a JSON object")
    return values


def encode(value: object) -> str:
    """JSON. Raises ValueError for a number that it does not have, RecursionError for too deep a nesting."""
    return json.dumps(value, allow_nan=False)


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
        value = json.loads(request.data)
        is_new = store.put(name, value)
    except (ValueError, RecursionError):
        say(response, 400, "this is not JSON, has a number out of range, or is nested too deeply")
    else:
        say(response, 201 if is_new else 200, value)


def say(response: HttpResponse, status: int, value: object) -> None:
    response.status = status
    response.headers["Content-Type"] = "application/json"
    response.data = encode(value)


def main(port: str = "8000", file: str = "store.json") -> None:
    store = Store(Path(file).resolve())
    with suppress(KeyboardInterrupt), HttpServer(int(port), answer, (store,), block=False) as server:
        print(server.url, flush=True)
        server.join()


if __name__ == "__main__":
    try:
        main(*sys.argv[1:3])
    except (OSError, RuntimeError, ValueError) as error:
        sys.exit(str(error))
