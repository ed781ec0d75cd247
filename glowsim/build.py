"""From a scenario to a control plane and a world: the only place where names become objects."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import inf
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import glowsim
from glowsim import registry, traffic
from glowsim.build_quality import Judging, judging
from glowsim.build_regions import front_door, nearest_agents, round_trips
from glowsim.build_servers import served
from glowsim.core.advice import advised
from glowsim.core.control_plane import ControlPlane, Notes
from glowsim.core.errors import GlowsimError, WorldError
from glowsim.core.journal import Journal
from glowsim.core.pool import Controllers, PoolSpec
from glowsim.core.price import Price
from glowsim.core.streams import Streams, key_of
from glowsim.core.together import Breakers, Limiters
from glowsim.core.wrappers import fallback, shadow
from glowsim.presets import workloads as presets
from glowsim.presets.workloads import WorkloadPreset
from glowsim.scenario import Scenario, digest
from glowsim.scenario import fleet as written
from glowsim.scenario import laws as written_laws
from glowsim.scenario import servers as written_servers
from glowsim.scenario import workload as written_workload
from glowsim.scenario.controllers import Controller, Limit
from glowsim.scenario.problems import Finding
from glowsim.scenario.workload import ALL
from glowsim.sim import faults, laws
from glowsim.sim.answers import Answers
from glowsim.sim.feedback import Users
from glowsim.sim.service import Service, TimeService, TokenService, Variant
from glowsim.sim.steps import Client, Loop, ModelCall, Step, Task, Together, ToolCall
from glowsim.sim.workload import arrivals, traces
from glowsim.sim.workload.clients import ClientColumns
from glowsim.sim.workload.columns import AgentTraits, Cacheable, Columns, Shape
from glowsim.sim.workload.sessions import SessionShape, SessionSource
from glowsim.sim.workload.sources import ClosedSource, OpenSource, Source
from glowsim.sim.world import AgentWorld, Watch, World
from glowsim.traces import published, reading
from glowsim.traces.log import LogError

__all__ = [
    "BuildError", "Replication", "agent_world", "control_plane", "header", "law", "nearest_agents", "recorded",
    "replication", "sources",
]  # fmt: skip

_DEFAULT_QUEUE = Controller(use="fifo")
_DEFAULT_BALANCER = Controller(use="round_robin")
_TOGETHER: dict[str, Callable[[list[Any]], Any]] = {"limiter": Limiters, "breaker": Breakers}
"""How several controllers of a family decide as one."""
_CANCEL_GRACE_S = 30.0
_HOLD_LIMIT = 10_000
_FOLLOWER_LIMIT = 10_000
_MEMORY = 10_000
_QUEUE_LIMIT = 10_000


class BuildError(GlowsimError):
    """A scenario is well-formed but its parts do not go together."""


class Replication(NamedTuple):
    """One replication, ready to run."""

    world: World
    journal: Journal
    streams: Streams
    agents: list[AgentWorld]

    @property
    def random(self) -> bool:
        """Whether another replication could come out differently; to be asked after the run."""
        by_key = bool(self.world.servers) or self.world.answers is not None  # drawn by key, from no stream
        return by_key or self.streams.random or any(agent.startup.random for agent in self.agents)


# --- the control plane --------------------------------------------------------------------------------


def header(scenario: Scenario, replication: int) -> dict[str, Any]:
    """Return what a journal of this scenario begins with: names, prices, versions."""
    names = list(scenario.agents())
    return {
        "glowsim": glowsim.__version__,
        "numpy": np.__version__,
        "scenario": scenario.title,
        "digest": digest(scenario),
        "seed": scenario.seed,
        "replication": replication,
        "on_error": "stop",
        "agents": names,
        "models": list(scenario.models),
        "regions": list(scenario.regions),
        "variants": [["baseline", *agent.variants] for agent in scenario.agents().values()],
    }


def control_plane(
    scenario: Scenario, streams: Streams, *, allow_plugins: bool = False, fall_back: bool = False,
    advise: bool = False,
) -> ControlPlane:  # fmt: skip
    """Return a fresh control plane for a scenario's fleet.

    Parameters
    ----------
    scenario
        The fleet and its controllers.
    streams
        Hand out randomness to the controllers, by agent and family.
    allow_plugins
        Whether controllers may be code beside the scenario.
    fall_back
        Live: a controller that raises is replaced by its family's fallback for that decision.
    advise
        Beside the traffic: requests go as they went, and the controllers only say what they would have done.
    """
    notes = Notes()
    models = {name: number for number, name in enumerate(scenario.models)}
    maker = _Maker(streams, _prices(scenario), tuple(models), notes, allow_plugins, fall_back, {})
    shared = maker.fleetwide(scenario.controllers.fleetwide())
    pools = []
    for number, (name, agent) in enumerate(scenario.agents().items()):
        chosen = scenario.controllers_of(agent)
        if "splitter" in chosen and not agent.variants:
            raise BuildError(f"{name} has a splitter but no variants to split between: give it 'variants'")
        made = maker.controllers(name, number, chosen, shared, 1 + len(agent.variants))
        spec = PoolSpec(
            agent=number,
            slots=agent.slots,
            concurrency=agent.concurrency,
            models=(models[agent.model],) * (1 + len(agent.variants)),
            timeout_s=agent.timeout_s,
            first_token_timeout_s=inf if agent.first_token_timeout_s is None else agent.first_token_timeout_s,
            cancel_grace_s=_CANCEL_GRACE_S,
            hold_limit=_HOLD_LIMIT,
            follower_limit=_FOLLOWER_LIMIT,
            memory=_MEMORY,
            probe_every_s=inf if agent.health_check_s is None else agent.health_check_s,
            region=scenario.regions.index(agent.region),
            prices=tuple(model.price for model in scenario.models.values()),
        )
        pools.append(advised(spec, made, notes) if advise else (spec, made))
    return ControlPlane(pools, notes)


def _prices(scenario: Scenario) -> tuple[Price, ...]:
    """Return the prices of each agent's model, by the agent's number."""
    return tuple(scenario.models[agent.model].price for agent in scenario.agents().values())


class _Maker(NamedTuple):
    """Makes controllers of what a scenario says, with what is handed to them."""

    streams: Streams
    prices: tuple[Price, ...]
    models: tuple[str, ...]
    notes: Notes
    allow_plugins: bool
    fall_back: bool
    known: dict[int, tuple[Controller, type, dict[str, Any], list[Finding]]]
    """What was found of a controller, by the identity of what is written: fifty agents share a few of those.

    What is written comes along, so that nothing else gets its identity.
    """

    def fleetwide(self, limits: Sequence[Controller]) -> list[Any]:
        """Return the limiters that all agents share; their alerts are the first agent's."""
        made = []
        for i, limit in enumerate(limits):
            place = f"limiter.{i}"
            hands = {"stream": self.streams.stream("controller", ALL, place), "prices": self.prices}
            made.append(self._one(ALL, 0, "limiter", place, limit, hands))
        return made

    def controllers(
        self,
        name: str,
        number: int,
        chosen: dict[str, tuple[Controller, ...]],
        shared: list[Any],
        variants: int,
    ) -> Controllers:
        """Return an agent's controllers, the fleet's limiters among its own where they stand."""
        chosen = {"queue": (_DEFAULT_QUEUE,), "balancer": (_DEFAULT_BALANCER,)} | chosen
        limits = iter(shared)
        made: dict[str, list[Any]] = {family: [] for family in chosen}
        for family, ones in chosen.items():
            alone = len(ones) == 1 and family != "detector"
            for i, controller in enumerate(ones):
                if isinstance(controller, Limit) and controller.scope == "fleet":
                    made[family].append(next(limits))
                    continue
                place = family if alone else f"{family}.{i}"
                stream = self.streams.stream("controller", name, place)
                hands = {"stream": stream, "agent": number, "prices": self.prices, "models": self.models,
                         "variants": variants}  # fmt: skip
                made[family].append(self._one(name, number, family, place, controller, hands))
        detectors = tuple(made.pop("detector", ()))
        try:
            singles = {
                family: parts[0] if len(parts) == 1 else _TOGETHER[family](parts)
                for family, parts in made.items()
            }
        except ValueError as error:
            raise BuildError(f"{name}: {error}") from error
        return Controllers(detectors=detectors, **singles)

    def _one(
        self, name: str, number: int, family: str, place: str, controller: Controller, hands: dict[str, Any]
    ) -> Any:
        known = self.known.get(id(controller))
        if known is None:
            kind = registry.find(family, controller.use, allow_plugins=self.allow_plugins)
            known = controller, kind, *registry.check(kind, controller.settings)
            self.known[id(controller)] = known
        _, kind, arguments, findings = known
        if findings:
            raise BuildError(f"{name}: {place}: {findings[0].message}")
        asked = registry.handed_in(kind)
        unknown = [each for each in asked if each not in hands]
        if unknown:
            raise BuildError(
                f"{name}: {place}: {controller.use} asks for {unknown[0]!r}, which nobody hands in"
            )
        try:
            made = kind(*(hands[each] for each in asked), **arguments)
            if controller.shadow is not None:
                place += ".shadow"
                hands = {**hands, "stream": self.streams.stream("controller", name, place)}
                candidate = self._one(name, number, family, place, controller.shadow, hands)
                made = shadow(family, made, candidate, number, self.notes)
        except ValueError as error:
            raise BuildError(f"{name}: {place}: {error}") from error
        if self.fall_back:
            return fallback(family, made, number, self.notes, queue_limit=_QUEUE_LIMIT)
        return made


# --- the world ------------------------------------------------------------------------------------------


def replication(
    scenario: Scenario, number: int, *, journal_path: Path | None = None, data: Path | None = None,
    allow_plugins: bool = False, watch: Callable[[ControlPlane], Watch] | None = None,
) -> Replication:  # fmt: skip
    """Return one replication of a scenario, ready to run.

    Parameters
    ----------
    scenario
        What to run.
    number
        Which replication, from 0: names its random streams, together with the seed.
    journal_path
        Where to write the journal; without one it stays in memory.
    data
        The folder of recorded traces.
    allow_plugins
        Whether controllers may be code beside the scenario.
    watch
        Given the control plane, returns who is told every event and what was answered to it, and changes nothing.
    """
    streams = Streams(scenario.seed, number)
    plane = control_plane(scenario, streams, allow_plugins=allow_plugins)
    agents = [agent_world(scenario, agent) for agent in scenario.agents().values()]
    judged = _judging(scenario, streams)
    sources = _sources(scenario, agents, streams, data, judged)
    scripts = [fault for each in scenario.faults for fault in _faults(scenario, each)]
    journal = Journal(header(scenario, number), journal_path)
    answers = None if judged is None else Answers(judged.quality, Users(judged.channels, judged.feedback_key))
    world = World(
        plane, journal, agents, sources, streams, scripts, served(scenario, streams, law), answers,
        round_trips(scenario), front_door(scenario),
        None if watch is None else watch(plane),
    )  # fmt: skip
    return Replication(world, journal, streams, agents)


def sources(
    scenario: Scenario, number: int, data: Path | None = None, *, at_once: int | None = None
) -> list[Source]:
    """Return who sends the requests of one replication, the same as in `replication`, without a world.

    Parameters
    ----------
    scenario
        Whose workload.
    number
        Which replication, from 0.
    data
        The folder of recorded traces.
    at_once
        Requests are drawn so many at a time, the same ones: where a clock runs meanwhile, it should be few.
    """
    streams = Streams(scenario.seed, number)
    agents = [agent_world(scenario, agent) for agent in scenario.agents().values()]
    return _sources(scenario, agents, streams, data, _judging(scenario, streams), at_once)


def _sources(
    scenario: Scenario, agents: Sequence[AgentWorld], streams: Streams, data: Path | None, judged: Judging | None,
    at_once: int | None = None,
) -> list[Source]:  # fmt: skip
    traits = _traits(scenario, agents)
    kinds = () if judged is None else judged.kinds
    return [
        _source(scenario, index, workload, traits, streams, data, kinds, at_once)
        for index, workload in enumerate(scenario.workload)
    ]


def truth(scenario: Scenario, number: int) -> Judging | None:
    """Return the truth about the answers of one replication, the same as in `replication`; None: it has none."""
    return _judging(scenario, Streams(scenario.seed, number))


def _judging(scenario: Scenario, streams: Streams) -> Judging | None:
    """Return the truth about the answers of a scenario, if it has one."""
    if scenario.quality is None:
        return None
    agents = {name: list(agent.variants) for name, agent in scenario.agents().items()}
    groups = {
        name: scenario.members(name) for agent in scenario.fleet for name in (agent.name, *agent.names())
    }
    try:
        return judging(scenario.quality, list(scenario.models), agents, groups, streams)
    except (ValueError, WorldError) as error:
        raise BuildError(f"quality: {error}") from error


def _traits(scenario: Scenario, agents: Sequence[AgentWorld]) -> list[AgentTraits]:
    """Return what workloads must know of each agent, and of each service after them."""
    traits = [AgentTraits(agent.service, agent.region, _lucky(scenario, agent)) for agent in agents]
    numbers = _numbers(scenario)
    for service in scenario.services.values():
        members = [traits[numbers[name]] for name in service.agents]
        traits.append(members[0]._replace(lucky=any(each.lucky for each in members)))
    return traits


def _numbers(scenario: Scenario) -> dict[str, int]:
    """Return the number by which requests name each agent, and each service after them."""
    return {name: number for number, name in enumerate((*scenario.agents(), *scenario.services))}


def _lucky(scenario: Scenario, agent: AgentWorld) -> bool:
    errors = [agent.invalid, agent.error, *(variant.error for variant in agent.variants)]
    return any(errors) or any(isinstance(fault, written.Errors) for fault in scenario.faults)


def agent_world(scenario: Scenario, agent: written.Agent) -> AgentWorld:
    """Return what a world knows of an agent."""
    shared = isinstance(agent.service, written_laws.TokenService)
    return AgentWorld(
        service=_service(agent.service),
        concurrency=agent.concurrency,
        instances=agent.instances,
        slowdown=agent.service.slowdown if isinstance(agent.service, written_laws.TokenService) else 0.0,
        shared=shared,
        startup=law(agent.startup_s),
        task=task(agent) if isinstance(agent.service, written_servers.StepsService) else None,
        cancellable=agent.cancellable,
        region=scenario.regions.index(agent.region),
        idle_timeout_s=inf if agent.idle_timeout_s is None else agent.idle_timeout_s,
        invalid=agent.failures.invalid,
        error=agent.failures.error,
        variants=tuple(
            Variant(variant.slowdown, agent.failures.error if variant.error is None else variant.error)
            for variant in agent.variants.values()
        ),
    )


def _service(service: written.Service) -> Service:
    if isinstance(service, written_servers.StepsService):
        return TimeService(laws.Constant(0.0))  # its steps take the time
    if isinstance(service, written_laws.TimeService):
        return TimeService(law(service.time_s))
    noise = laws.Constant(1.0) if service.noise is None else law(service.noise)
    return TokenService(service.base_s, service.input_s_per_token, service.output_s_per_token, noise)


def task(agent: written.Agent) -> Task:
    """Return the steps of an agent that works in steps."""
    service = agent.service
    if not isinstance(service, written_servers.StepsService):
        raise BuildError(f"{agent.name} does not work in steps")
    client = Client(service.client.tries, service.client.wait_s)
    key = key_of("instructions", agent.name)
    return Task(_steps(service.steps, iter(range(1, 1 << 20))), key, service.instructions, client)


def _steps(steps: tuple[written_servers.Step, ...], numbers: Iterator[int]) -> tuple[Step, ...]:
    made: list[Step] = []
    for step in steps:
        number = next(numbers)
        match step:
            case written_servers.AnswerStep():
                made.append(ModelCall(number, None))
            case written_servers.CallStep():
                made.append(ModelCall(number, laws.at_or_always(law(step.tokens_out))))
            case written_servers.ToolStep():
                time_s, tokens = (laws.at_or_always(law(each)) for each in (step.time_s, step.tokens))
                made.append(ToolCall(number, time_s, tokens, step.fails, step.tries, step.needed))
            case written_servers.LoopStep():
                made.append(Loop(number, _steps(step.steps, numbers), step.again, step.most))
            case written_servers.TogetherStep():
                branches = tuple(_steps(branch, numbers) for branch in step.branches)
                made.append(Together(number, branches))
    return tuple(made)


def law(said: Any) -> laws.Law:
    """Return the law that a scenario's law stands for."""
    made: laws.Law
    match said:
        case written_laws.Constant():
            return laws.Constant(float(said.value))
        case written_laws.Exponential():
            made = laws.Exponential(said.mean)
        case written_laws.Lognormal():
            made = laws.LogNormal(said.median, said.sigma)
        case written_laws.Gamma():
            made = laws.Gamma(said.mean, said.cv)
        case written_laws.Uniform():
            made = laws.Uniform(said.low, said.high)
        case _:
            made = laws.Quantiles(said.p, said.x)
    if said.minimum is None and said.maximum is None:
        return made
    return laws.Clipped(made, said.minimum or 0.0, inf if said.maximum is None else said.maximum)


def _lies_at(file: str, data: Path | None) -> Path:
    try:
        return published.find(file, data)
    except LogError as error:
        raise BuildError(str(error)) from error


def recorded(workload: written_workload.Trace, data: Path | None) -> traces.Trace:
    """Return the trace of a workload, all of it: a run on the readable part of a trace would be of another one.

    Raises
    ------
    BuildError
        It is not there, or a row of it cannot be read or has no tokens.
    """
    path, layout = _lies_at(workload.file, data), workload.columns
    columns = None
    if layout is not None:
        columns = {"t_s": layout.time, "tokens_in": layout.tokens_in, "tokens_out": layout.tokens_out}
    try:
        log = reading.read(path, workload.format, columns=columns)
    except LogError as error:
        raise BuildError(str(error)) from error
    if log.reading.refused_count:
        raise BuildError(f"{path}: every row must be readable, to be replayed\n{log.reading.text()}")
    missing = [name for name in ("tokens_in", "tokens_out") if np.isnan(log.numbers.get(name, np.nan)).any()]
    if missing:
        raise BuildError(f"{path} has rows without {missing[0]}: give each a number, or leave them out")
    tokens_in, tokens_out = (log.numbers[name].astype(np.int64) for name in ("tokens_in", "tokens_out"))
    return traces.Trace(log.t_s, tokens_in, tokens_out)


def _source(
    scenario: Scenario, index: int, workload: written_workload.Workload, traits: list[AgentTraits], streams: Streams,
    data: Path | None, kinds: Sequence[str] = (), at_once: int | None = None,
) -> Source:  # fmt: skip
    name = f"{index}"
    shares, numbers = scenario.shares(workload), _numbers(scenario)
    nothing: laws.Law = laws.Constant(0.0)
    tokens_in, tokens_out = nothing, nothing  # a trace brings its own
    preset = _resembled(workload, data)
    if preset is not None:
        tokens_in, tokens_out = traffic.sizes(preset).tokens_in, traffic.sizes(preset).tokens_out
    elif not isinstance(workload, written_workload.Trace | written_workload.Preset | written_workload.Fitted):
        tokens_in, tokens_out = law(workload.tokens_in), law(workload.tokens_out)
    shape = Shape(
        agents=tuple(numbers[agent] for agent in shares),
        weights=tuple(shares.values()),
        tokens_in=tokens_in,
        tokens_out=tokens_out,
        max_tokens_out=workload.max_tokens_out,
        priority=workload.priority,
        stream=workload.stream,
        deadline_s=inf if workload.deadline_s is None else workload.deadline_s,
        users=workload.users,
        tenants=len(preset.clients) if preset is not None and preset.clients else workload.tenants,
        cacheable=None if workload.cacheable is None else Cacheable(
            workload.cacheable.share, workload.cacheable.keys, workload.cacheable.zipf
        ),
        kinds=_kinds(index, workload, kinds),
        users_from=_users_from(scenario, workload),
    )  # fmt: skip
    tasks = inf if workload.tasks is None else workload.tasks
    until_s = scenario.duration_s
    if preset is not None:
        alike = ClientColumns(name, shape, traits, streams, *traffic.parts(preset))
        return OpenSource(alike, alike.blocks(until_s), until_s, tasks, at_once)
    columns = Columns(name, shape, traits, streams)
    if isinstance(workload, written_workload.Closed):
        return ClosedSource(name, columns, workload.users, law(workload.think_s), streams, until_s, tasks)
    if isinstance(workload, written_workload.Sessions):
        began = _moments(workload.arrivals, until_s, streams.generator("workload", name, "arrivals"))
        return SessionSource(name, columns, began, _sessions(workload, numbers), streams, until_s, tasks)
    if isinstance(workload, written_workload.Trace):
        return OpenSource(
            columns, traces.blocks(recorded(workload, data), workload.speed), until_s, tasks, at_once
        )
    return OpenSource(
        columns,
        _moments(workload, until_s, streams.generator("workload", name, "arrivals")),
        until_s,
        tasks,
        at_once,
    )


def _users_from(scenario: Scenario, workload: written_workload.Workload) -> tuple[float, ...]:
    """Return the share of a workload's users in each region; empty where it does not say."""
    said = workload.users_from
    return tuple(said.get(region, 0.0) for region in scenario.regions) if said else ()


def _kinds(index: int, workload: written_workload.Workload, kinds: Sequence[str]) -> tuple[float, ...]:
    """Return the weights of the kinds of task, by their numbers."""
    unknown = [name for name in workload.kinds if name not in kinds]
    if unknown:
        raise BuildError(
            f"workload.{index}.kinds: unknown kind of task {unknown[0]!r}; the quality knows {', '.join(kinds)}"
        )
    return tuple(workload.kinds.get(kind, 0.0) for kind in kinds) if workload.kinds else ()


def _resembled(workload: written_workload.Workload, data: Path | None) -> WorkloadPreset | None:
    """Return the preset that a workload names, at the rate that it says; None: it names none."""
    match workload:
        case written_workload.Preset():
            preset, place = presets.load(workload.preset), f"the preset {workload.preset}"
        case written_workload.Fitted():
            preset, place = presets.load_file(_lies_at(workload.file, data)), workload.file
        case _:
            return None
    if preset.clients and (workload.tenants != 1 or workload.users is not None):
        raise BuildError(f"{place} brings its own tenants: leave out the workload's 'tenants' and 'users'")
    return preset.at_rate(workload.rate_per_s)


def _sessions(workload: written_workload.Sessions, numbers: dict[str, int]) -> SessionShape:
    first = workload.first_tokens_in
    return SessionShape(
        turns=law(workload.turns),
        most_turns=workload.most_turns,
        think=law(workload.think_s),
        first_tokens_in=None if first is None else law(first),
        max_context=inf if workload.max_context is None else workload.max_context,
        compacted=workload.compacted,
        hand_over={
            numbers[agent]: tuple((numbers[to], share) for to, share in following.items())
            for agent, following in workload.hand_over.items()
        },
        users=workload.users,
    )


def _moments(workload: Any, until_s: float, generator: np.random.Generator) -> Iterator[laws.Array]:
    match workload:
        case written_workload.PoissonArrivals():
            return arrivals.poisson(workload.rate_per_s, generator)
        case written_workload.PiecewiseArrivals():
            steps = [(step.at_s, step.rate_per_s) for step in workload.steps]
        case written_workload.BurstsArrivals():
            steps = arrivals.bursts(
                workload.base_per_s, workload.burst_per_s, workload.every_s, workload.lasts_s, until_s
            )
        case written_workload.WeeklyArrivals():
            steps = arrivals.weekly(workload.mean_per_s, workload.hours, workload.days, until_s)
        case _:
            curve = arrivals.diurnal(
                workload.mean_per_s, workload.amplitude, workload.period_s, workload.peak_at_s, until_s
            )
            return arrivals.inhomogeneous(*curve, generator)
    return arrivals.inhomogeneous(*arrivals.piecewise(steps, until_s), generator)


def _faults(scenario: Scenario, fault: written.Fault) -> Iterator[faults.Fault]:
    if isinstance(fault, written.RegionLoss):
        yield faults.RegionLoss(scenario.regions.index(fault.region), fault.at_s, fault.lasts_s)
        return
    if isinstance(fault, written.ServerSlow | written.ServerDown):
        server = list(scenario.servers).index(fault.server)
        if isinstance(fault, written.ServerSlow):
            yield faults.ServerSlow(server, fault.at_s, fault.lasts_s, fault.replicas, fault.factor)
        else:
            yield faults.ServerDown(server, fault.at_s, fault.lasts_s, fault.replicas)
        return
    numbers = {agent: number for number, agent in enumerate(scenario.agents())}
    for member in scenario.members(fault.agent):
        when = numbers[member], fault.at_s, fault.lasts_s
        match fault:
            case written.Crash():
                yield faults.Crash(*when, fault.instances)
            case written.Slow():
                yield faults.Slow(*when, fault.instances, fault.factor)
            case written.BrownOut():
                yield faults.BrownOut(*when, fault.factor)
            case written.Errors():
                yield faults.Errors(*when, fault.error)
            case written.Refuse():
                yield faults.Refuse(*when, fault.instances, fault.after_s)
            case written.Hang():
                yield faults.Hang(*when, fault.instances)
            case written.Throttle():
                yield faults.Throttle(*when, fault.share, fault.retry_after_s)
            case written.Garbage():
                yield faults.Garbage(*when, fault.instances, fault.after_s, fault.noticed)
            case written.SlowStart():
                yield faults.SlowStart(*when, fault.factor)
            case written.Tools():
                yield faults.Tools(*when, fault.fails, fault.factor)
            case written.Late():
                yield faults.Late(*when, fault.by_s)
            case written.Silence():
                yield faults.Silence(*when)
