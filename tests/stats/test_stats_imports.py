"""Importing the package must stay cheap: the command line's help does it."""

import subprocess
import sys


def test_no_heavy_module_is_imported() -> None:
    code = (
        "import sys, glowsim.stats, glowsim.stats.queueing as q; q.mmc(0.5, 1.0, 1); "
        "print([m for m in ('scipy', 'pandas', 'matplotlib', 'statsmodels') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
