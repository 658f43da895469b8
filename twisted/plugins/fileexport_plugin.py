"""Lets twistd and twist find the service; there is no `__init__.py` beside it, on purpose."""

from twisted.application.service import ServiceMaker

serviceMaker = ServiceMaker(
    "fileexport", "fileexport.service", "Export a directory of files over HTTP.", "fileexport"
)
