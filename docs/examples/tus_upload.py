"""Upload a file, and go on where it was broken off: `python tus_upload.py FILE`."""

import os
import sys

from tusclient.client import TusClient
from tusclient.storage.filestorage import FileStorage

headers = {"Authorization": f"Bearer {os.environ['FILEEXPORT_TOKEN']}"}
client = TusClient(f"{os.environ['FILEEXPORT_URL']}-/uploads?dir=/dumps", headers=headers)
path = sys.argv[1]
# What was begun is remembered in a file here: the next call goes on with it.
storage = FileStorage("uploads.json")
uploader = client.uploader(
    path,
    metadata={"filename": os.path.basename(path)},
    store_url=True,
    url_storage=storage,
    retries=5,
    retry_delay=2,
)
uploader.upload()
storage.close()
print(uploader.url)
