"""Stands between the daemon and one worker process, and sees to it that no worker outlives the daemon.

Run as a script in a session of its own, ``keeper.py GRACE_S COMMAND...``, it starts the command and holds its
own standard input, whose other end only the daemon has. When that closes, because the daemon wants the worker
to go or because the daemon is gone, however it went, every process of the session's group is asked to end
(SIGTERM) and after the grace made to (SIGKILL). When the worker ends by itself, its exit code is written to
standard output, and what it left running is killed. What the worker prints goes to standard error.

Only the standard library, and nothing of glowsim: it starts in tens of milliseconds. All of it is POSIX, so it
holds on Linux and macOS alike. A worker that leaves the group (``setsid``) is on its own.
"""

import os
import signal
import subprocess
import sys
import threading
import time

__all__ = ["main"]


def main(grace_s: float, command: list[str]) -> None:
    """Keep one worker; does not return, since it is the last of its group to be killed."""
    # The group's SIGTERM is not for this process. A handler, unlike "ignore", is not inherited by the worker.
    signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        worker = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=sys.stderr)  # noqa: S603  # no shell
        threading.Thread(target=_end, args=(grace_s,), daemon=True).start()
        code = worker.wait()
    except OSError as error:
        os.write(2, f"cannot run {command[0]}: {error.strerror}\n".encode())
        code = 127
    try:
        os.write(1, b"%d" % code)
    finally:
        os.killpg(0, signal.SIGKILL)


def _end(grace_s: float) -> None:
    os.read(0, 1)  # returns when the other end is closed
    os.killpg(0, signal.SIGTERM)
    time.sleep(grace_s)
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main(float(sys.argv[1]), sys.argv[2:])
