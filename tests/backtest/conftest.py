"""Logs whose truth is known, as in the tests of import."""

import importlib.util
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def logs():
    spec = importlib.util.spec_from_file_location(
        "synthetic_logs", Path(__file__).parents[1] / "importing" / "synthetic_logs.py"
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules["synthetic_logs"] = module
    spec.loader.exec_module(module)
    return module
