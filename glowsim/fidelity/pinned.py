"""``python -m glowsim.fidelity.pinned CORE NICENESS PROGRAM ...``: become a program on one core, with this niceness."""

from __future__ import annotations

import os
import sys

if __name__ == "__main__":
    core, niceness, *program = sys.argv[1:]
    if hasattr(os, "sched_setaffinity"):
        allowed = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {allowed[int(core) % len(allowed)]})
    os.nice(int(niceness))
    os.execvp(program[0], program)  # noqa: S606
