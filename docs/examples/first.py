"""Send a file, look at what is there, fetch it again: python first.py FILE COPY

The server is named as for the command `fileexport`: by FILEEXPORT_HOSTNAME and FILEEXPORT_TOKEN_FILE.
"""

import os
import sys
from pathlib import Path

from fileexport import Client

source, copy = map(Path, sys.argv[1:])
token = Path(os.environ["FILEEXPORT_TOKEN_FILE"]).read_text(encoding="ascii").split()[0]
port = int(os.environ.get("FILEEXPORT_PORT", "6768"))

with Client(os.environ["FILEEXPORT_HOSTNAME"], port, token) as client:
    client.make_directory("inbox", "/", exist_ok=True)
    client.upload_file(source, "/inbox", replace=True)
    for name, (is_directory, size, mtime) in client.list_files("/inbox").items():
        print(name, "directory" if is_directory else size, mtime)
    client.download_file(f"/inbox/{source.name}", copy.parent, copy.name)
