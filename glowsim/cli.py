"""The command line: thin; what is heavy is imported inside the commands."""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer

from glowsim.commands import ab, importing, load, oc, pairs, prometheus, report, workload
from glowsim.commands.common import BAD_INPUT, fresh_folder, load_scenario, stop, summary_as_json
from glowsim.commands.options import (
    DataOption,
    FormatOption,
    JsonOption,
    PluginsOption,
    PolicyOption,
    ScenarioArgument,
    SetOption,
)
from glowsim.commands.prometheus import PrometheusOption
from glowsim.commands.watch import speed_of, stay, watching

__all__ = ["app", "main"]

_WATCH_PORT = 8082

app = typer.Typer(
    help="Try the operating policies of a fleet of AI agents in simulation, then run the very same controllers live.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

controllers = typer.Typer(help="What decides: the controllers that can be chosen.", no_args_is_help=True)
app.add_typer(controllers, name="controllers")
app.add_typer(workload.app, name="workload")
app.add_typer(report.app, name="report")
app.add_typer(pairs.app, name="pairs")
app.add_typer(ab.app, name="ab")
importing.add_to(app)
load.add_to(app)
oc.add_to(app)


def main() -> None:
    """Run the command line."""
    from glowsim.core.errors import GlowsimError

    try:
        app()
    except GlowsimError as error:
        stop("\n".join([str(error), *getattr(error, "__notes__", ())]))
    except KeyboardInterrupt:
        typer.echo("interrupted: nothing was kept", err=True)
        sys.exit(130)


@app.command()
def run(
    scenario: ScenarioArgument,
    overrides: SetOption = [],  # noqa: B006
    replications: Annotated[
        int | None,
        typer.Option(min=1, max=10_000, help="Independent runs; default: 5 where a run is short, else 1."),
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Instead of the scenario's seed.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run; default: a new one under runs/.")
    ] = None,
    data: DataOption = None,
    jobs: Annotated[int, typer.Option(min=1, max=256, help="Processes to spread the replications over.")] = 1,
    watch: Annotated[
        bool, typer.Option("--watch", help="One replication, on the dashboard's page as it goes.")
    ] = False,
    speed: Annotated[
        str | None,
        typer.Option(metavar="10x|max", help="Of --watch: times real time; default: about a minute in all."),
    ] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Of --watch, on loopback; 0: any; default: 8082.")
    ] = None,
    metrics: PrometheusOption = None,
    allow_plugins: PluginsOption = False,
    as_json: JsonOption = False,
) -> None:
    """Run a scenario; exit 0 if every service level is met, 1 if one is not, 3 if undecided, 2 on bad input."""
    from glowsim.experiment.judgement import EXIT_CODES
    from glowsim.experiment.run import run as run_scenario

    seeded = overrides if seed is None else [*overrides, f"seed={seed}"]
    path, loaded = load_scenario(scenario, seeded, allow_plugins=allow_plugins)
    if metrics is not None:
        prometheus.ready_for(metrics)
    command = ["glowsim", *sys.argv[1:]]
    with ExitStack() as stack:
        watcher = None
        if watch:
            if replications not in (None, 1):
                stop("--watch shows one replication: leave --replications out")
            _live_extra()
            watcher = stack.enter_context(
                watching(loaded, speed_of(speed, loaded.duration_s), _WATCH_PORT if port is None else port)
            )
        elif speed is not None or port is not None:
            stop("--speed and --port are for --watch: add it, or leave them out")
        with _progress(loaded.duration_s, quiet=as_json) as progress:
            finished = run_scenario(
                loaded, path.stem, out or fresh_folder(path.stem), replications=replications, jobs=jobs, data=data,
                allow_plugins=allow_plugins, command=command, progress=progress, watcher=watcher,
            )  # fmt: skip
        if metrics is not None:
            prometheus.write(metrics, finished.folder, allow_plugins=allow_plugins)
        if as_json:
            typer.echo(
                json.dumps(
                    summary_as_json(finished.summary, finished.folder, finished.wall_s, finished.cpu_s)
                )
            )
        else:
            from glowsim.summary import render

            typer.echo(render(finished.summary, finished.folder, finished.wall_s))
        if watcher is not None:
            watcher.judged(finished.summary["verdict"])
            stay()
    sys.exit(EXIT_CODES[finished.summary["verdict"]])


class _progress:  # noqa: N801
    """A line on the terminal with simulated time and speed; nothing where nobody looks."""

    def __init__(self, duration_s: float, *, quiet: bool) -> None:
        self._duration_s = duration_s
        self._shown = not quiet and sys.stderr.isatty()
        self._bar: Any = None

    def __enter__(self) -> Any:
        if not self._shown:
            return None
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[speed]}"), TimeElapsedColumn(),
            console=Console(stderr=True), transient=True,
        )  # fmt: skip
        self._bar.start()
        self._task = self._bar.add_task("starting", total=1.0, speed="")
        return self._tell

    def _tell(self, number: int, count: int, t_s: float) -> None:
        import time

        from glowsim.scenario import format_duration

        now = time.monotonic()
        begun, told_s = (
            getattr(self, "_since", (now, 0.0)) if t_s >= getattr(self, "_t_s", 0.0) else (now, 0.0)
        )
        self._since, self._t_s = (begun, told_s), t_s
        speed = t_s / (now - begun) if now > begun else 0.0
        self._bar.update(
            self._task,
            completed=(number + min(t_s / self._duration_s, 1.0)) / count,
            description=f"replication {number + 1} of {count}: {format_duration(round(t_s))} simulated",
            speed=f"{speed:,.0f}x real time" if speed else "",
        )

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()


@app.command()
def validate(
    scenarios: Annotated[
        list[str], typer.Argument(metavar="SCENARIO...", help="YAML files, or bundled names.")
    ],
    overrides: SetOption = [],  # noqa: B006
    allow_plugins: PluginsOption = False,
) -> None:
    """Check scenarios without running them; exit 2 with every problem of every file."""
    from glowsim.scenario import ScenarioError

    broken = False
    for scenario in scenarios:
        try:
            path, loaded = load_scenario(scenario, overrides, allow_plugins=allow_plugins)
        except ScenarioError as error:
            broken = True
            typer.echo(str(error), err=True)
        else:
            typer.echo(
                f"{path}: {loaded.title}: {len(loaded.agents())} agents, {len(loaded.slos)} service levels: good"
            )
    if broken:
        sys.exit(BAD_INPUT)


@app.command()
def schema() -> None:
    """Print the JSON Schema of scenarios, for editors that complete."""
    from glowsim.scenario import schema as json_schema

    typer.echo(json.dumps(json_schema(), indent=1))


@app.command("list")
def list_scenarios() -> None:
    """List the bundled scenarios and the questions that they answer."""
    from glowsim.resources import resource
    from glowsim.scenario import load

    for path in sorted(resource("scenarios").glob("*.yaml")):
        loaded = load(path)
        typer.echo(f"{path.stem}\n    {loaded.title}\n    {loaded.question}")


@controllers.command("list")
def list_controllers(as_json: JsonOption = False) -> None:
    """List the controllers, family by family in the order of a request's way, with one line each."""
    from glowsim.showing import decides, families

    found = families()
    if as_json:
        typer.echo(
            json.dumps({family: {"decides": decides(family), "names": found[family]} for family in found})
        )
        return
    for family, lines in found.items():
        typer.echo(f"{family}: {decides(family)}")
        for name, line in lines.items():
            typer.echo(f"  {name:20} {line}")


@controllers.command("show")
def show_controller(
    name: Annotated[str, typer.Argument(help="A name (see list), FAMILY/NAME, or module:Class.")],
    allow_plugins: PluginsOption = False,
    as_json: JsonOption = False,
) -> None:
    """Show what a controller decides, its parameters with bounds and defaults, and a block to copy."""
    from glowsim.showing import render, show

    if allow_plugins:
        from glowsim.registry import add_plugin_folder

        add_plugin_folder(Path.cwd())
    shown = show(name, allow_plugins=allow_plugins)
    if as_json:
        typer.echo(json.dumps(shown.as_json()))
        return
    from rich.console import Console

    render(shown, Console(highlight=False))


@app.command()
def init(
    folder: Annotated[Path, typer.Argument(help="Where to put scenarios, their schema and the notebooks.")],
) -> None:
    """Copy out what a user edits; nothing that is there is overwritten."""
    from glowsim.resources import resource

    files = {
        **{
            folder / "scenarios" / each.relative_to(resource("scenarios")): each
            for each in sorted(resource("scenarios").rglob("*"))
            if each.is_file()
        },
        **{folder / "notebooks" / each.name: each for each in sorted(resource("notebooks").glob("*.ipynb"))},
    }
    taken = [target for target in files if target.exists()]
    if taken:
        stop(f"{taken[0]} exists; nothing was written: name another folder, or remove it")
    for target, source in files.items():
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(source.read_bytes())
        typer.echo(str(target))


@app.command()
def replay(
    source: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run, or a journal.")],
    scenario: Annotated[
        str | None, typer.Option(help="For a journal by itself: the scenario that it was made with.")
    ] = None,
    policy: PolicyOption = [],  # noqa: B006
    allow_plugins: PluginsOption = False,
    as_json: JsonOption = False,
) -> None:
    """Feed recorded events to fresh controllers: exit 0 if every command is equal and had its effect, 1 if not.

    With --policy also to those of another one: exit 0 if it commands the same all along, 1 with the first difference.
    """
    from glowsim.experiment.replaying import replay as replay_all

    loaded = None
    if scenario is not None:
        _, loaded = load_scenario(scenario, [], allow_plugins=allow_plugins)
    good = True
    found = []
    for result in replay_all(source, loaded, policy, allow_plugins=allow_plugins):
        good &= result.proved and result.agreed
        if as_json:
            found.append(result.as_json())
        else:
            typer.echo(result.text)
    if as_json:
        typer.echo(json.dumps({"policy": policy, "journals": found}, allow_nan=False))
    sys.exit(0 if good else 1)


@app.command()
def check(
    source: Annotated[
        Path, typer.Argument(metavar="JOURNAL_OR_RUN", help="The folder of a run, or a journal.")
    ],
    scenario: Annotated[
        str | None, typer.Option(help="For a journal by itself: the scenario that it was made with.")
    ] = None,
    allow_plugins: PluginsOption = False,
) -> None:
    """Check the invariants over recorded journals; exit 0 if all hold, 1 with what does not, 2 on bad input."""
    from glowsim.fuzz.journals import check_journals

    loaded = None if scenario is None else load_scenario(scenario, [], allow_plugins=allow_plugins)[1]
    broken = False
    for checked in check_journals(source, loaded, allow_plugins=allow_plugins):
        torn = " (a torn last frame was left out)" if checked.torn else ""
        verdict = f"{len(checked.violations)} violations" if checked.violations else "every invariant holds"
        typer.echo(f"{checked.path}: {checked.records:,} records, {verdict}{torn}")
        for violation in checked.violations:
            typer.echo(f"  {violation}")
        broken |= bool(checked.violations)
    sys.exit(1 if broken else 0)


@app.command()
def fuzz(
    seeds: Annotated[int, typer.Option(min=1, help="How many random scenarios.")] = 200,
    first: Annotated[int, typer.Option(min=0, help="The first seed.")] = 0,
    jobs: Annotated[int, typer.Option(min=1, max=256, help="Processes to spread the seeds over.")] = 1,
    as_json: JsonOption = False,
) -> None:
    """Run random scenarios and check everything; exit 0 if all holds, 1 with the smallest scenarios that fail."""
    from glowsim.fuzz.campaign import campaign, write

    shown = not as_json and sys.stderr.isatty()
    failed: list[dict[str, Any]] = []
    for seed, found in campaign(first, seeds, jobs):
        if shown:
            typer.echo(f"\r{seed - first + 1} of {seeds} seeds, {len(failed)} failed", nl=False, err=True)
        if found is None:
            continue
        kind, message = found.failure
        file = str(write(found, Path()))
        failed.append({"seed": seed, "kind": kind, "message": message, "file": file, "again": found.again})
        if not as_json:
            typer.echo(f"seed {seed}: {kind}: {message}\n  shrunk: {file}\n  again:  {found.again}")
    if shown:
        typer.echo(err=True)
    if as_json:
        typer.echo(json.dumps({"first": first, "seeds": seeds, "failed": failed}))
    else:
        typer.echo(f"{seeds} seeds from {first}: {len(failed)} failed")
    sys.exit(1 if failed else 0)


@app.command()
def bench(
    as_json: JsonOption = False,
    requests: Annotated[int, typer.Option(min=1000, help="Requests in each timed run.")] = 100_000,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds; the figures are medians over them.")] = 5,
    gateway: Annotated[
        bool, typer.Option("--gateway", help="The live gateway against a bare proxy, instead.")
    ] = False,
    peer: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="With --gateway: the litellm of an environment with litellm[proxy], opentelemetry-sdk and httptools, "
            "measured too; default: the one beside this Python.",
        ),
    ] = None,
) -> None:
    """Time the simulator against a bare heap loop of the same queue in the same process."""
    if gateway:
        _bench_gateway(rounds, peer, as_json=as_json)
        return
    if peer is not None:
        stop("--peer is measured beside the gateway: give --gateway too")
    from glowsim.bench import bench as run_bench

    figures = run_bench(requests, rounds)
    if as_json:
        typer.echo(json.dumps(figures))
        return
    typer.echo(
        f"M/M/10 at 80 % load, {requests:,} requests, median of {rounds} rounds, requests per CPU-second:"
    )
    for name in (name for name in figures if name not in ("ratios", "requests", "rounds")):
        ratio = figures["ratios"].get(name)
        typer.echo(
            f"  {name:19}{figures[name]:>12,}" + ("" if ratio is None else f"   {ratio:.3f} of the bare loop")
        )


@app.command()
def certify(
    scenario: ScenarioArgument,
    overrides: SetOption = [],  # noqa: B006
    replications: Annotated[
        int,
        typer.Option(
            min=2,
            max=10_000,
            help="Independent runs; live traffic like theirs leaves a bound by chance once in as many.",
        ),
    ] = 20,
    out: Annotated[
        Path | None, typer.Option(help="The certificate; default: SCENARIO.certificate.json beside the file.")
    ] = None,
    run_dir: Annotated[
        Path | None, typer.Option(help="Folder of the run; default: a new one under runs/.")
    ] = None,
    data: DataOption = None,
    jobs: Annotated[int, typer.Option(min=1, max=256, help="Processes to spread the replications over.")] = 1,
    allow_plugins: PluginsOption = False,
) -> None:
    """Run a scenario over many seeds and certify its controllers for 'serve', if every service level is met."""
    from glowsim.certification.certificate import path_beside, write
    from glowsim.certification.command import certified
    from glowsim.certification.envelope import FIGURES
    from glowsim.experiment.run import run as run_scenario
    from glowsim.summary import render

    path, loaded = load_scenario(scenario, overrides, allow_plugins=allow_plugins)
    where = out or (path_beside(path) if path.parent != _bundled() else Path(path_beside(path).name))
    with _progress(loaded.duration_s, quiet=False) as progress:
        finished = run_scenario(
            loaded, path.stem, run_dir or fresh_folder(path.stem), replications=replications, jobs=jobs, data=data,
            allow_plugins=allow_plugins, command=["glowsim", *sys.argv[1:]], progress=progress,
        )  # fmt: skip
    typer.echo(render(finished.summary, finished.folder, finished.wall_s))
    certificate = certified(loaded, finished.folder)
    write(certificate, where)
    typer.echo(f"certified: {where}, for blocks of 100 requests with")
    for name, bounds in certificate.bounds().items():
        low = "" if bounds.low == 0.0 else f"{bounds.low:.4g} to "
        typer.echo(f"  {FIGURES[name]:58}{low or 'at most '}{bounds.high:.4g}")


def _bundled() -> Path:
    from glowsim.resources import resource

    return Path(str(resource("scenarios")))


def _live_extra() -> None:
    """Stop with the remedy where the packages of live mode are missing."""
    from importlib.util import find_spec

    for name in ("aiohttp", "httptools", "jwt", "prometheus_client", "starlette", "uvicorn", "uvloop"):
        if find_spec(name) is None:
            stop(f"live mode needs {name}: pip install 'glowsim[live]'")


def _bench_gateway(rounds: int, peer: Path | None, *, as_json: bool) -> None:
    _live_extra()
    from glowsim.bench_gateway import bench_gateway, beside

    peer = peer or beside()
    figures = bench_gateway(rounds=rounds, peer=peer)
    if as_json:
        typer.echo(json.dumps(figures))
        return
    typer.echo(f"chat completions of an agent that answers at once, medians of {rounds} rounds:")
    for name, row in figures.items():
        if "cpu_us" not in row:
            continue
        typer.echo(
            f"  {name:12}{row['requests_per_s']:>9,.0f}/s   {row['cpu_us']:>5.0f} us of CPU a request   "
            f"p50 {row['p50_ms']:.1f} ms, p99 {row['p99_ms']:.1f} ms at 200/s   {row['rss_mb']:.0f} MB"
        )
    ratios = figures["ratios"]
    typer.echo(
        f"the gateway reaches {ratios['requests_per_s']:.2f} of the bare proxy's rate ({ratios['cpu']:.2f} by CPU) and "
        f"adds {ratios['added_p99_ms']:.1f} ms to the p99"
    )
    if peer is None:
        typer.echo(
            "LiteLLM's proxy was not measured: there is no litellm beside this Python; name one by --peer"
        )
        return
    versions = ", ".join(f"{name} {version}" for name, version in figures["versions"].items())
    typer.echo(
        f"it answers {ratios['of_litellm']:.1f} times the requests of LiteLLM's proxy "
        f"({ratios['cpu_of_litellm']:.1f} times by CPU): {versions}"
    )


@app.command()
def serve(
    scenario: ScenarioArgument,
    overrides: SetOption = [],  # noqa: B006
    upstream: Annotated[
        list[str], typer.Option(metavar="AGENT=URL", help="A real agent; given often, several instances.")
    ] = [],  # noqa: B006
    host: Annotated[str, typer.Option(help="Address; other than loopback only with keys.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the gateway; 0: any.")] = 8080,
    admin_port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port of metrics and state; 0: any.")
    ] = 8081,
    journal: Annotated[
        Path | None, typer.Option(help="Folder of the journal; default: serve.glow, or advise.glow.")
    ] = None,
    store: Annotated[
        Path | None, typer.Option(help="Where feedback, audit and minutes go; default: JOURNAL.db.")
    ] = None,
    keep_text: Annotated[bool, typer.Option(help="Keep the texts of feedback.")] = False,
    health_path: Annotated[
        str | None,
        typer.Option(help="Path to GET for a health check of an upstream; default: a TCP connect."),
    ] = None,
    grace: Annotated[
        float, typer.Option(min=0, help="Seconds in which open requests may finish at the end.")
    ] = 30.0,
    certificate: Annotated[
        Path | None,
        typer.Option(help="What 'certify' wrote; default: SCENARIO.certificate.json beside the file."),
    ] = None,
    unvalidated: Annotated[
        bool, typer.Option("--unvalidated", help="Serve real agents by controllers without a certificate.")
    ] = False,
    allow_plugins: PluginsOption = False,
    advise: Annotated[
        bool, typer.Option("--advise", help="Stand beside the traffic: read --log and --metrics, recommend.")
    ] = False,
    log: Annotated[
        Path | None, typer.Option(help="With --advise: a request log that grows (as 'import' reads them).")
    ] = None,
    layout: FormatOption = None,
    metrics: Annotated[
        list[str],
        typer.Option(metavar="AGENT=URL", help="With --advise: an instance's metrics page, by vLLM's names."),
    ] = [],  # noqa: B006
    lag: Annotated[
        float, typer.Option(min=0, help="With --log: seconds from a request's beginning to its row.")
    ] = 60.0,
) -> None:
    """Run a scenario's controllers live, in front of real agents; those without an upstream are emulated."""
    _live_extra()
    if advise:
        if upstream or keep_text or unvalidated or health_path:
            stop(
                "--advise carries no traffic: leave out --upstream, --health-path, --keep-text and --unvalidated"
            )
        from glowsim.certification.certificate import path_beside
        from glowsim.live.advice.daemon import Sources, run_advice

        file, loaded = load_scenario(scenario, overrides, allow_plugins=allow_plugins)
        sources = Sources(log, layout, _by_agent("--metrics", metrics), lag)
        sys.exit(
            run_advice(
                loaded,
                sources,
                host=host,
                admin_port=admin_port,
                journal_path=journal or Path("advise.glow"),
                store_path=store,
                allow_plugins=allow_plugins,
                certificate=certificate or path_beside(file),
            )
        )
    if log or layout or metrics:
        stop("--log, --format and --metrics are for --advise")
    from glowsim.certification.certificate import path_beside
    from glowsim.live.daemon import run_daemon
    from glowsim.scenario import load

    file, loaded = load_scenario(scenario, overrides, allow_plugins=allow_plugins)
    sys.exit(
        run_daemon(
            loaded,
            host=host,
            port=port,
            admin_port=admin_port,
            upstreams=_by_agent("--upstream", upstream),
            health_path=health_path,
            journal_path=journal or Path("serve.glow"),
            store_path=store,
            keep_text=keep_text,
            grace_s=grace,
            allow_plugins=allow_plugins,
            folder=file.parent,
            certificate=None if unvalidated else certificate or path_beside(file),
            again=lambda: load(file, overrides, allow_plugins=allow_plugins),
        )
    )


def _by_agent(option: str, given: list[str]) -> dict[str, list[str]]:
    """Return agent -> the URLs that an option gives it."""
    found: dict[str, list[str]] = {}
    for each in given:
        agent, equals, url = each.partition("=")
        if not equals or not url:
            stop(f"{option} {each!r}: write AGENT=URL")
        found.setdefault(agent, []).append(url)
    return found


@app.command()
def emulate(
    scenario: ScenarioArgument,
    overrides: SetOption = [],  # noqa: B006
    host: Annotated[str, typer.Option(help="Address.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0: any.")] = 9100,
    agent: Annotated[
        str | None, typer.Option(help="Only this agent, as one instance at the root: a worker process.")
    ] = None,
) -> None:
    """Serve a simulated fleet over real sockets, in real time: live mode without an agent or a key."""
    _live_extra()
    from glowsim.live.emulator import run_emulator

    _, loaded = load_scenario(scenario, overrides, allow_plugins=False)
    run_emulator(loaded, host=host, port=port, agent=agent)


if __name__ == "__main__":
    main()
