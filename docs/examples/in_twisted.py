"""The daemon as one of the services of a Twisted program: python in_twisted.py DIRECTORY [PORT]

Clients of the transfer protocol need the token that FILEEXPORT_TOKEN holds. Ends with Ctrl-C.
"""

import os
import sys
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred
from twisted.internet.task import react

from fileexport.config import Settings
from fileexport.service import make_service


def main(reactor: Any, directory: str, port: str = "0") -> Deferred[None]:
    program = MultiService()  # with whatever services it has beside
    reactor.addSystemEventTrigger("before", "shutdown", program.stopService)
    settings = Settings(root=directory, port=int(port), transfer=("shared",))
    exporting = make_service(settings, reactor=reactor, token=os.environ["FILEEXPORT_TOKEN"])
    exporting.setServiceParent(program)
    program.startService()
    print(f"port {exporting.tcp_addresses[0][1]}", flush=True)
    return Deferred()


if __name__ == "__main__":
    react(main, sys.argv[1:])
