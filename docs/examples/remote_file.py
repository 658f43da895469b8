"""Count the lines of a remote file that hold a word, keep the number beside it, and show how the file ends:

    python remote_file.py fileexport://localhost/logs/web.log error

The token comes from FILEEXPORT_TOKEN, or the file that FILEEXPORT_TOKEN_FILE names.
"""

import io
import sys

import fileexport

url, word = sys.argv[1:]

with fileexport.open(url, encoding="utf-8") as lines, fileexport.open(f"{url}.count", "w") as count:
    count.write(f"{sum(word in line for line in lines)}\n")

with fileexport.open(url, "rb") as file:
    size = file.seek(0, io.SEEK_END)
    file.seek(max(size - 1000, 0))
    sys.stdout.write(file.read().decode("utf-8", "replace"))
