"""What all tests share: Hypothesis' patience, where recorded data lie, and logs whose truth is known."""

import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import settings

# Hypothesis looks for the same examples every time, and is not hurried on a busy machine.
settings.register_profile("glowsim", deadline=None, derandomize=True)
settings.load_profile("glowsim")

BESIDE = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def data_file() -> Callable[[str], Path]:
    """Return what finds a file of the data folder, or skips: recorded data are not part of the project."""

    def find(name: str) -> Path:
        path = Path(os.environ.get("GLOWSIM_DATA") or BESIDE) / name
        if not path.is_file():
            message = f"{name} is not there: name its folder by GLOWSIM_DATA"
            if os.environ.get("GLOWSIM_CI") == "1":
                pytest.fail(message)
            pytest.skip(message)
        return path

    return find


@pytest.fixture(scope="session")
def logs() -> ModuleType:
    """Return the module that writes logs whose truth is known, for the tests of import and of backtest."""
    path = Path(__file__).parent / "importing" / "synthetic_logs.py"
    spec = importlib.util.spec_from_file_location("synthetic_logs", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["synthetic_logs"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def _serving():
    """Skip where the live extra is missing, unless that is a failure (GLOWSIM_CI=1)."""
    for name in ("aiohttp", "prometheus_client", "starlette", "uvicorn"):
        if importlib.util.find_spec(name) is None:
            message = f"{name} is missing: install glowsim[live]"
            if os.environ.get("GLOWSIM_CI") == "1":
                pytest.fail(message)
            pytest.skip(message)
