"""Receive webhooks: python receiver.py whsec_… 9010"""

import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

from standardwebhooks import Webhook


class Receiver(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        job = Webhook(sys.argv[1]).verify(body, dict(self.headers))  # raises unless the daemon signed it
        print(job["type"], job["data"]["target"], flush=True)
        self.send_response(204)
        self.end_headers()


HTTPServer(("127.0.0.1", int(sys.argv[2])), Receiver).serve_forever()
