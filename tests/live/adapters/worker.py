"""A worker for the tests: ``worker.py PORT HOW LINE INSTANCE``.

It opens the named pipe LINE, writes who it is, and holds it open: whoever reads the pipe to its end knows that
all workers are gone. HOW is what it does otherwise than well.
"""

import os
import signal
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Answers(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.say("well")

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        if self.server.how == "held":
            os.close(os.open(self.server.gate, os.O_RDONLY))  # until somebody has opened it for writing
        told = [os.environ.get(name) for name in ("GREETING", "GLOWSIM_ADMIN_TOKEN")]
        self.say(f'{{"output": "instance {self.server.instance} in {Path.cwd()}, {told[0]}, {told[1]}"}}')

    def say(self, text):
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_):
        pass


def main(port, how, line, instance):
    def hold(role):
        held = os.open(line, os.O_WRONLY)
        os.write(held, f"{role} {instance} {os.getpid()}\n".encode())

    if how == "parent" and os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        hold("child")
        while True:
            signal.pause()
    hold("worker")
    match how:
        case "dies":
            print("loading the model", file=sys.stderr)
            sys.exit("no \x1b[31mmemory\x1b[0m is left")
        case "stubborn":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        case "chatty":
            for number in range(40_000):
                print(f"line {number} " + "x" * 90, file=sys.stderr if number % 2 else sys.stdout)
        case "never":
            while True:
                signal.pause()
    server = ThreadingHTTPServer(("127.0.0.1", port), Answers)
    server.how, server.instance, server.gate = how, instance, f"{line}.gate"
    server.serve_forever()


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
