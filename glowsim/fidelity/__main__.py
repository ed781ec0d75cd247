"""``python -m glowsim.fidelity``: measure real model servers against what was predicted, and write the page."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from importlib.util import find_spec
from pathlib import Path

_NEEDED = {"llama_cpp": "llama-cpp-python", "transformers": "transformers", "torch": "torch", "gguf": "gguf"}


def main() -> None:
    """Run the campaign, or go on with it."""
    parser = argparse.ArgumentParser(prog="python -m glowsim.fidelity", description=__doc__)
    parser.add_argument(
        "--folder", type=Path, required=True, help="where the parts are; one that is there is not done again"
    )
    parser.add_argument("--out", type=Path, required=True, help="the page: docs/fidelity.md")
    parser.add_argument("--load-seconds", type=float, default=6.0, help="of sending each load, twice")
    parser.add_argument("--arm-seconds", type=float, default=3.5, help="of sending to each set of policies")
    parser.add_argument("--replications", type=int, default=4, help="of each set of policies, at least 2")
    given = parser.parse_args()
    if min(given.load_seconds, given.arm_seconds) <= 0.0 or given.replications < 2:
        parser.error("seconds must be above 0, and --replications at least 2: one alone has no interval")
    missing = [package for module, package in _NEEDED.items() if find_spec(module) is None]
    if missing:
        parser.error(f"{', '.join(missing)} not installed: pip install 'glowsim[fidelity]'")
    from glowsim.core.errors import GlowsimError
    from glowsim.fidelity.campaign import Plan, campaign
    from glowsim.fidelity.page import page

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the servers end, too
    begun_s = time.monotonic()

    def say(words: str) -> None:
        print(f"{time.monotonic() - begun_s:6.0f} s  {words}", flush=True)

    plan = Plan(given.load_seconds, 2, given.arm_seconds, given.replications)
    try:
        parts = campaign(given.folder, plan, say)
    except GlowsimError as error:
        sys.exit(f"error: {error}")
    given.out.write_text(page(parts), encoding="utf-8")
    say(f"{given.out} is written")


if __name__ == "__main__":
    main()
