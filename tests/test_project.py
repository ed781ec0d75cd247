"""Facts about the project's own files."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import glowsim

ROOT = Path(__file__).resolve().parents[1]


def tracked() -> list[Path]:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.split(
        b"\0"
    )
    return [ROOT / name.decode() for name in names if name and (ROOT / name.decode()).is_file()]


def test_constraints_hold_names_versions_and_markers_only() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert lines
    line = re.compile(
        r"[A-Za-z0-9][A-Za-z0-9._-]*==[0-9][A-Za-z0-9.!+]*( ; \(?[a-z_]+ [<>=!]+ '[^']+'( (and|or) .+)?)?"
    )
    for each in lines:
        assert line.fullmatch(each), each
    assert not any(word in text for text in lines for word in ("://", "file:", "--", "@"))


def test_every_direct_dependency_is_constrained() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    block = text[text.index("dependencies = [") : text.index("[project.optional-dependencies]")]
    names = re.findall(r'"([A-Za-z0-9._-]+)>=', block)
    pinned = {line.split("==")[0].lower() for line in (ROOT / "constraints.txt").read_text().splitlines()}
    assert names
    assert {name.lower().replace(".", "-") for name in names} <= pinned


def test_no_file_names_a_machine_or_a_registry() -> None:
    machine = re.compile(r"(?<![\w.])/(work|farm|root|home)/[\w.]|pypi\.org|registry\.npmjs|deb\.debian")
    for path in tracked():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        if path != Path(__file__).resolve():
            assert not machine.search(text), f"{path}: {machine.search(text)}"


def test_lock_files_that_record_addresses_are_not_tracked() -> None:
    assert not {path.name for path in tracked()} & {"uv.lock", "pylock.toml", "poetry.lock"}


def test_the_version_is_the_same_everywhere() -> None:
    assert f'version = "{glowsim.__version__}"' in (ROOT / "pyproject.toml").read_text()
    assert f"## {glowsim.__version__}" in (ROOT / "CHANGELOG.md").read_text()


HEAVY = ("scipy", "pandas", "matplotlib", "statsmodels", "pyarrow", "numpy", "simpy", "typst")


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["replay", "--help"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys; sys.argv = ['glowsim', *sys.argv[1:]]\n"
        "from glowsim.cli import main\n"
        "try:\n    main()\nexcept SystemExit as stop:\n    assert not stop.code, stop.code\n"
        f"print('HEAVY', sorted(set({HEAVY!r}) & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
    )
    assert "Usage" in done.stdout
    assert done.stdout.splitlines()[-1] == "HEAVY []", done.stdout[-300:] + done.stderr[-300:]
