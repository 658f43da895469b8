"""Write an index of all CSV files below a remote directory, and put those that are empty aside:
python remote_path.py fileexport://localhost/reports

The token comes from the environment, as for the command `fileexport`.
"""

import sys

from fileexport import RemotePath


def index(top: RemotePath) -> int:
    """Write `index.txt` with one line for each file that has content; how many there are."""
    aside = top / "empty"
    aside.mkdir(exist_ok=True)
    lines = []
    for path in sorted(top.rglob("*.csv")):
        if path.is_relative_to(aside):
            continue
        if path.stat().st_size == 0:
            try:
                path.rename(aside / path.name)
            except FileExistsError:
                print(f"{path} stays: there is one of its name aside")
            continue
        with path.open(encoding="utf-8") as file:
            lines.append(f"{path.relative_to(top)}: {file.readline().strip()}\n")
    # One step: whoever reads it meanwhile has the old one or the new one.
    (top / "index.txt").write_text("".join(lines), encoding="utf-8")
    return len(lines)


if __name__ == "__main__":
    directory = RemotePath(sys.argv[1])
    if not directory.is_dir():
        sys.exit(f"{directory.as_uri()} is no directory")
    print(index(directory), "files")
