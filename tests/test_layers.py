"""Who may import whom, read from the imports themselves; and what core and controllers must never touch."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted([*(ROOT / "glowsim").rglob("*.py"), *(ROOT / "controllers").rglob("*.py")])
EVERYONE = {
    "glowsim.build",
    "glowsim.build_quality",
    "glowsim.build_servers",
    "glowsim.registry",
    "glowsim.bench",
    "glowsim.bench_gateway",
    "glowsim.build_regions",
    "glowsim.cli",
    "glowsim.commands",
    "glowsim.emulation",
    "glowsim.__main__",
}
LEAVES = ("glowsim.stats", "glowsim.summary", "glowsim.resources")
ALLOWED = {
    "glowsim.core": ("glowsim.core",),
    "controllers": ("controllers", "glowsim.core", "glowsim.stats.experiments"),
    "glowsim.sim": ("glowsim.sim", "glowsim.core"),
    "glowsim.presets": ("glowsim.presets", "glowsim.core"),
    "glowsim.traces": ("glowsim.traces", "glowsim.presets", "glowsim.core", "glowsim.stats"),
    "glowsim.live": (
        "glowsim.live", "glowsim.core", "glowsim.scenario", "glowsim.build", "glowsim.emulation",
        "glowsim.certification", "glowsim.reload", "glowsim.traces",
    ),
    "glowsim.certification": ("glowsim.certification", "glowsim.core", "glowsim.results", "glowsim.scenario"),
    "glowsim.scenario": ("glowsim.scenario", "glowsim.core", "glowsim.presets", "glowsim.registry"),
    "glowsim.stats": ("glowsim.stats",),
    "glowsim.results": ("glowsim.core", "glowsim.scenario", "glowsim.serving_cost"),
    "glowsim.serving_cost": ("glowsim.core", "glowsim.presets", "glowsim.results", "glowsim.scenario"),
    "glowsim.experiment": (
        "glowsim.experiment", "glowsim.build", "glowsim.core", "glowsim.results", "glowsim.scenario", "glowsim.stats",
        "glowsim.report", "glowsim.registry", "glowsim.ledger", "glowsim.recordings", "glowsim.reload",
        "glowsim.presets",
        "glowsim.sim.serving.saturation",
    ),
    "glowsim.fuzz": (
        "glowsim.fuzz", "glowsim.build", "glowsim.core", "glowsim.ledger", "glowsim.recordings", "glowsim.registry",
        "glowsim.results", "glowsim.scenario",
    ),
    "glowsim.fidelity": (
        "glowsim.fidelity", "glowsim.build", "glowsim.core", "glowsim.importing", "glowsim.load", "glowsim.results",
        "glowsim.scenario", *LEAVES,
    ),
    "glowsim.claims": (
        "glowsim.claims", "glowsim.core", "glowsim.experiment", "glowsim.report", "glowsim.scenario", *LEAVES,
    ),
    "glowsim.importing": (
        "glowsim.importing", "glowsim.core", "glowsim.presets", "glowsim.scenario", "glowsim.traces", "glowsim.traffic",
    ),
    "glowsim.backtest": (
        "glowsim.backtest", "glowsim.build", "glowsim.core", "glowsim.importing", "glowsim.presets", "glowsim.report",
        "glowsim.results", "glowsim.scenario", "glowsim.traces", *LEAVES,
    ),
    "glowsim.load": (
        "glowsim.load", "glowsim.build", "glowsim.core", "glowsim.experiment", "glowsim.results", "glowsim.scenario",
        "glowsim.serving_cost", "glowsim.sim.environment", "glowsim.sim.service", "glowsim.sim.workload",
    ),
    "glowsim.pairs": (
        "glowsim.pairs", "glowsim.build", "glowsim.core", "glowsim.load", "glowsim.presets", "glowsim.results",
        "glowsim.scenario", *LEAVES,
    ),
    "glowsim.oc": (
        "glowsim.oc", "glowsim.build", "glowsim.core", "glowsim.pairs", "glowsim.registry", "glowsim.report",
        "glowsim.results", "glowsim.scenario", *LEAVES,
    ),
    "glowsim.reload": ("glowsim.build", "glowsim.core", "glowsim.scenario"),
    "glowsim.ledger": ("glowsim.core", "glowsim.results", "glowsim.scenario", "glowsim.serving_cost"),
    "glowsim.recordings": ("glowsim.core", "glowsim.results", "glowsim.scenario"),
    "glowsim.validation": (
        "glowsim.validation", "glowsim.build", "glowsim.core", "glowsim.report", "glowsim.results", "glowsim.scenario",
        "glowsim.sim", "glowsim.stats",
    ),
    "glowsim.pictures": (
        "glowsim.pictures", "glowsim.build", "glowsim.core", "glowsim.report", "glowsim.results", "glowsim.scenario",
    ),
    "glowsim.showing": ("glowsim.core", "glowsim.registry", "glowsim.scenario"),
    "glowsim.report": (
        "glowsim.report", "glowsim.scenario", "glowsim.core", "glowsim.presets", "glowsim.registry",
        "glowsim.ledger", "glowsim.serving_cost",
        *LEAVES,
    ),
}  # fmt: skip
FORBIDDEN_MODULES = {
    "time",
    "random",
    "asyncio",
    "simpy",
    "socket",
    "os",
    "sys",
    "threading",
    "subprocess",
    "secrets",
}
MAY_OPEN_FILES = {"glowsim.core.journal"}


def module_of(path: Path) -> str:
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    return name.removesuffix(".__init__")


def imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def within(name: str, packages: tuple[str, ...]) -> bool:
    return any(name == package or name.startswith(package + ".") for package in packages)


def layer(module: str) -> str | None:
    return next((each for each in ALLOWED if within(module, (each,))), None)


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_a_module_imports_only_what_its_layer_may(path: Path) -> None:
    module = module_of(path)
    own = layer(module)
    if module in EVERYONE or own is None:
        return
    tree = ast.parse(path.read_text(encoding="utf-8"))
    ours = [name for name in imports(tree) if within(name, ("glowsim", "controllers"))]
    wrong = [name for name in ours if name.startswith("glowsim.") and not within(name, ALLOWED[own])]
    wrong += [name for name in ours if within(name, ("controllers",)) and own != "controllers"]
    assert not wrong, f"{module} may import only {', '.join(ALLOWED[own])}"


def test_only_the_registry_names_controllers() -> None:
    for path in FILES:
        module = module_of(path)
        if module == "glowsim.registry" or not module.startswith("glowsim"):
            continue
        found = [
            name
            for name in imports(ast.parse(path.read_text(encoding="utf-8")))
            if within(name, ("controllers",))
        ]
        assert not found, f"{module} names {found[0]}: go through the registry"


@pytest.mark.parametrize(
    "path",
    [path for path in FILES if within(module_of(path), ("glowsim.core", "controllers"))],
    ids=module_of,
)
def test_core_and_controllers_have_no_clock_no_randomness_and_no_io(path: Path) -> None:
    module, tree = module_of(path), ast.parse(path.read_text(encoding="utf-8"))
    roots = {name.split(".")[0] for name in imports(tree)}
    assert not roots & FORBIDDEN_MODULES
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            assert name != "open", f"{module}:{node.lineno} opens a file"
            assert not name.endswith((".now", ".utcnow", ".today")), f"{module}:{node.lineno} reads a clock"
            assert name not in ("sum", "hash", "id"), (
                f"{module}:{node.lineno} calls {name}: it differs between Python versions or runs"
            )
            if name.endswith((".open", ".read_bytes", ".write_bytes", ".read_text", ".write_text")):
                assert module in MAY_OPEN_FILES, f"{module}:{node.lineno} does I/O"


def test_the_rules_catch_what_they_forbid() -> None:
    tree = ast.parse("import time\nfrom simpy import Environment\nimport glowsim.sim.world")
    assert set(imports(tree)) == {"time", "simpy.Environment", "glowsim.sim.world"}
    assert not within("glowsim.sim.world", ALLOWED["glowsim.core"])
    assert not within("glowsim.simulacrum", ("glowsim.sim",))
