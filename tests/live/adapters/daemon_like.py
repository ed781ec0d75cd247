"""A process that has workers and does nothing else: ``daemon_like.py HOW LINE GRACE_S``."""

import asyncio
import sys
from pathlib import Path

from glowsim.live.adapters.process import Workers


async def main(how, line, grace_s):
    worker = str(Path(__file__).with_name("worker.py"))
    workers = Workers(
        [sys.executable, worker, "{port}", how, line, "{instance}"],
        connect=lambda url: None, lost=print, max_workers=2, grace_s=float(grace_s),
    )  # fmt: skip
    await asyncio.gather(workers.start(0), workers.start(1))
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
