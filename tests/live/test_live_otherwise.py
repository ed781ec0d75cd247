"""What another policy would have done with a journal: the same as it does, until the two first differ."""

from __future__ import annotations

import asyncio
import json

import pytest
from typer.testing import CliRunner

from glowsim import build
from glowsim.cli import app
from glowsim.core.errors import GlowsimError
from glowsim.core.journal import Effected, Journal, first_difference
from glowsim.core.streams import Streams
from glowsim.core.types import Code, Command, Event, Raise, Reason, Scale, Shadowed, Woke
from glowsim.experiment.otherwise import otherwise
from glowsim.experiment.replaying import only_policy, replay
from glowsim.scenario import load

pytestmark = pytest.mark.usefixtures("_serving")

FLEET = """
title: What if
question: When would another policy have done something else?
seed: 3
duration: 120s
drain: 10m
models:
  m: {input: $1/1M, output: $2/1M}
fleet:
  - agent: tax
    model: m
    instances: 2
    concurrency: 2
    startup: {law: exponential, mean: 4s}
    timeout: 12s
    service: {law: time, time: {law: exponential, mean: 1500ms}}
    failures: {invalid: 2%, error: 10%}
    variants: {candidate: {slowdown: 1.5, error: 20%}}
workload:
  - kind: piecewise
    steps: [{at: 0s, rate: 1/s}, {at: 40s, rate: 4/s}, {at: 90s, rate: 1/s}]
    tokens_in: {law: exponential, mean: 900}
    tokens_out: {law: exponential, mean: 100}
    max_tokens_out: 300
    cacheable: {share: 40%, keys: 30}
controllers:
  guard: {use: size}
  splitter: {use: canary, salt: v2, weight: 20%, then: [50%], hold: 30s, minimum: 1}
  limiter: {use: token_bucket, rate: 20/s, burst: 20}
  cache: {use: lru, entries: 20, ttl: 20s}
  queue: {use: priority, limit: 30}
  balancer: {use: least_connections}
  breaker: {use: consecutive}
  retrier: {use: backoff}
  scaler: {use: agent_scaler, min_instances: 1, max_instances: 5, look: 5s, cooldown_up: 7s, cooldown_down: 7s}
  detector: [{use: slo, metric: latency_s, threshold: 2, objective: 99%, burn: 2, window: 40s, short: 10s, minimum: 3}]
"""
POLICIES = {
    "scales up earlier": "controllers.scaler.scale_up=0.72",
    "looks at other times": "controllers.scaler.look=7s",
    "keeps its size": "controllers.scaler=null",
    "balances otherwise": "controllers.balancer.use=power_of_two",
    "caches for longer": "controllers.cache.ttl=60s",
    "lets less in": "controllers.limiter.rate=2/s",
    "gives up earlier": "fleet.tax.timeout=5s",
    "opens at once": "controllers.breaker.failures=1",
    "tries once": "controllers.retrier=null",
    "splits otherwise": "controllers.splitter.weight=30%",
    "holds stages for longer": "controllers.splitter.hold=50s",
}


def plane(scenario):
    return build.control_plane(scenario, Streams(scenario.seed, 0))


def deed(command):
    return (type(command), *(part for part in command if not isinstance(part, Reason)))


def deeds(recording):
    """Return (when, command) of what acts upon the world; a command's time is that of the event before it."""
    found, t_s = [], 0.0
    for record in recording.records():
        if isinstance(record, Command):
            if not isinstance(record, Raise | Shadowed):
                found.append((t_s, record))
        elif not isinstance(record, Effected):
            t_s = record.t_s
    return found


@pytest.fixture(scope="module")
def both(live):
    """The scenario, and its journals by the simulator and by the asyncio driver."""
    scenario = load(FLEET)
    journal, sent = live.simulated(scenario)
    lived, _ = live.jump(lambda: live.lived(scenario, sent))
    return scenario, journal.recording(), lived.recording()


def test_the_same_policy_makes_no_difference_in_either_drivers_journal(both):
    scenario, *recordings = both
    for recording in recordings:
        assert first_difference(recording, plane(scenario)) is None
        found = otherwise(recording, plane(scenario), plane(scenario))
        records = list(recording.records())
        events = [record for record in records if isinstance(record, Event)]
        assert found.difference is None
        assert (found.events, found.of_events) == (len(events), len(events))
        assert found.requests == found.of_requests > 200
        assert found.commands == len(deeds(recording))
        assert found.until_s == found.whole_s == events[-1].t_s
        assert found.other_reasons == 0
        raised = sum(isinstance(record, Raise) for record in records)
        assert found.alerts == (raised, raised) != (0, 0)


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
def test_up_to_the_difference_and_at_it_the_other_policy_does_what_it_really_does(live, both, policy):
    scenario, recording, lived = both
    other = load(FLEET, [policy])
    found = otherwise(recording, plane(scenario), plane(other))
    truth = deeds(live.simulated(other)[0].recording())
    recorded = deeds(recording)
    assert found.difference is not None, "the policies are to differ"
    t_s = found.difference.t_s
    before = [(when_s, deed(command)) for when_s, command in recorded if when_s < t_s]
    assert [(when_s, deed(command)) for when_s, command in truth if when_s < t_s] == before
    assert found.commands >= len(before)
    here, there = ([c for when_s, c in found_ if when_s == t_s] for found_ in (recorded, truth))
    would = [each for each in found.difference.otherwise if not isinstance(each, Raise | Shadowed)]
    was = [each for each in found.difference.recorded if not isinstance(each, Raise | Shadowed)]
    assert there[: len(would)] == would, "what it really commands then"
    assert here[: len(was)] == was
    assert [deed(each) for each in would] != [deed(each) for each in was]
    assert found.until_s < t_s or found.until_s == t_s == found.difference.event.t_s
    assert 0 < found.events < found.of_events
    again = otherwise(lived, plane(scenario), plane(other))
    # By their text: no nan equals another.
    assert repr(again.difference) == repr(found.difference), "both drivers held the same conversation"
    assert again[:6:2] == found[:6:2]


def test_a_driver_whose_timers_are_late_says_the_same_of_another_policy(both):
    scenario, recording, _ = both
    one, late = plane(scenario), Journal(recording.header)
    events = [record for record in recording.records() if isinstance(record, Event)]
    for event, after in zip(events, [*events[1:], events[-1]], strict=True):
        if isinstance(event, Woke):
            event = Woke((event.t_s + after.t_s) / 2.0)
        late.event(event)
        for command in one.handle(event):
            late.command(command)
    assert otherwise(late.recording(), plane(scenario), plane(scenario)).difference is None
    for policy in ("controllers.scaler.scale_up=0.72", "controllers.scaler.look=7s", "fleet.tax.timeout=5s"):
        punctual, tardy = (
            otherwise(each, plane(scenario), plane(load(FLEET, [policy]))).difference
            for each in (recording, late.recording())
        )
        assert tardy[0] == punctual[0]
        assert [deed(each) for each in tardy[3]] == [deed(each) for each in punctual[3]]


def test_another_reason_and_another_alert_are_no_difference(both):
    scenario, recording, _ = both
    quiet = load(FLEET, ["controllers.detector=[]"])
    found = otherwise(recording, plane(scenario), plane(quiet))
    assert found.difference is None
    assert found.alerts[0] > 0 == found.alerts[1]
    scales = [record for record in recording.records() if isinstance(record, Scale)]
    first = next(scale for scale in scales if scale.reason.code == Code.LOAD_HIGH)
    # A higher threshold that the load passes at the same look orders the same for another reason.
    other = load(FLEET, [f"controllers.scaler.scale_up={first.reason.b + 0.001}"])
    found = otherwise(recording, plane(scenario), plane(other))
    assert found.other_reasons > 0
    assert found.difference is None or found.difference.t_s > 40.0


@pytest.mark.parametrize(
    "override",
    ["seed=4", "workload.0.rate=1/s", "fleet.tax.instances=3", "fleet.tax.service.time=1s", "fleet={}", "models={}"],
)  # fmt: skip
def test_the_world_is_no_policy(override):
    with pytest.raises(GlowsimError, match="is of the world") as refused:
        only_policy(["controllers.scaler=null", override])
    assert override in str(refused.value)


# --- the command ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def daemons(tmp_path_factory):
    """The folder of a daemon's journal, of five requests, and of its scenario."""
    import aiohttp

    from glowsim.live.daemon import serving
    from glowsim.live.settings import settings

    folder = tmp_path_factory.mktemp("daemon")
    text = FLEET.replace("mean: 1500ms", "mean: 1ms").replace("{invalid: 2%, error: 10%}", "{invalid: 0%}")
    (folder / "fleet.yaml").write_text(text)
    chosen = settings(
        environment={},
        journal_path=folder / "serve.glow",
        journal_records=1,
        port=0,
        admin_port=0,
        grace_s=4.0,
    )

    async def main():
        async with (
            asyncio.timeout(60.0),
            serving(load(text), chosen) as daemon,
            aiohttp.ClientSession() as session,
        ):
            for _ in range(5):
                url = daemon.address + "/v1/agents/tax/tasks"
                async with session.post(url, json={"input": "hello"}) as answer:
                    assert answer.status == 200

    asyncio.run(main())
    return folder


def command(*arguments):
    done = CliRunner().invoke(app, [*map(str, arguments)])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done


def test_a_daemons_journal_answers_what_another_policy_would_have_done(daemons):
    source = (daemons / "serve.glow", "--scenario", daemons / "fleet.yaml")
    done = command("replay", *source)
    assert (done.exit_code, "every command equal" in done.stdout) == (0, True)
    assert "0 never told" in done.stdout
    done = command("replay", *source, "-p", "controllers.retrier=null")
    assert done.exit_code == 0
    assert "no difference up to the last event" in done.stdout
    assert "5 of 5 (100 %) requests" in done.stdout
    done = command("replay", *source, "--policy", "controllers.guard.max_tokens_in=1")
    assert done.exit_code == 1
    said = done.stdout
    assert "0 of 5 (0 %) requests" in said
    assert "request 1 arrived for tax" in said
    assert "recorded: send request 1 to instance" in said
    assert "instead:  turn request 1 away: " in said
    assert "tokens, more than the 1 allowed" in said
    assert said.rstrip().endswith("of the other one this journal says no more.")


def test_a_segment_replays_by_itself_and_is_asked_about_its_own_policy_only(daemons, tmp_path):
    scenario = ("--scenario", daemons / "fleet.yaml")
    segments = sorted((daemons / "serve.glow").iterdir())
    assert len(segments) > 3
    for segment in segments:
        done = command("replay", segment, *scenario)
        assert done.exit_code == 0, done.stdout
        assert "told of a command" not in done.stdout
    kept = tmp_path / "serve.glow"
    kept.mkdir()
    for segment in segments[1:]:
        (kept / segment.name).write_bytes(segment.read_bytes())
    assert command("replay", kept, *scenario).exit_code == 0
    for later in (kept, segments[2]):
        done = CliRunner().invoke(
            app, ["replay", str(later), *map(str, scenario), "-p", "controllers.retrier=null"]
        )
        assert "in a state of the recorded policy" in str(done.exception)


def test_a_journal_of_two_configurations_is_replayed_under_each(tmp_path):
    import aiohttp

    from glowsim.live.daemon import serving
    from glowsim.live.settings import settings

    text = FLEET.replace("mean: 1500ms", "mean: 1ms").replace("{invalid: 2%, error: 10%}", "{invalid: 0%}")
    chosen = settings(environment={}, journal_path=tmp_path / "serve.glow", port=0, admin_port=0, grace_s=4.0)

    async def main():
        async with (
            asyncio.timeout(60.0),
            serving(
                load(text), chosen, again=lambda: load(text, ["controllers.guard.max_tokens_in=9"])
            ) as daemon,
            aiohttp.ClientSession() as session,
        ):
            for reload in (True, False):
                url = daemon.address + "/v1/agents/tax/tasks"
                async with session.post(url, json={"input": "hello"}) as answer:
                    assert answer.status == 200
                if reload:
                    async with session.post(daemon.admin_address + "/v1/configuration") as answer:
                        assert answer.status == 200, await answer.text()

    asyncio.run(main())
    done = command("replay", tmp_path / "serve.glow")
    assert done.exit_code == 0, done.stdout
    assert done.stdout.count("every command equal") == 2
    assert "begins with the state that the one before leads to" in done.stdout
    found = json.loads(command("replay", tmp_path / "serve.glow", "--json").stdout)["journals"]
    assert [each["proved"] for each in found] == [True] * 3
    assert (found[0]["followed"], found[1]["followed"]) == (True, False)
    assert [each.partition(":")[0] for each in found[2]["differences"]] == ["controllers.guard.max_tokens_in"]
    done = CliRunner().invoke(app, ["replay", str(tmp_path / "serve.glow"), "-p", "controllers.retrier=null"])
    assert "no difference up to the last event" in done.stdout, "of the configuration that it begins with"
    assert "in a state of the recorded policy" in str(done.exception)


def test_as_json(daemons):
    source = (daemons / "serve.glow", "--scenario", daemons / "fleet.yaml")
    policy = "controllers.guard.max_tokens_in=1"
    done = command("replay", *source, "-p", policy, "--json")
    found = json.loads(done.stdout)
    (journal,) = found["journals"]
    assert found["policy"] == [policy]
    assert (journal["proved"], journal["difference"], journal["effects"]["never"]) == (True, None, {})
    assert (journal["policy"]["agrees"], journal["policy"]["of_requests"]) == (False, 5)
    (instead,) = journal["policy"]["difference"]["otherwise"]
    assert (instead["kind"], instead["reason"]) == ("Reject", "too_large")
    done = command("replay", *source, "--json")
    assert json.loads(done.stdout)["journals"][0]["policy"] is None


def test_a_policy_that_is_none_is_named_by_its_option(daemons):
    source = ("replay", daemons / "serve.glow", "--scenario", daemons / "fleet.yaml")
    for override, said in (
        ("controllers.scaler.lok=7s", "did you mean 'look'?"),
        ("seed=4", "is of the world"),
        ("controllers", "an override is written key.path=value"),
    ):
        done = CliRunner().invoke(app, [*map(str, source), "-p", override])
        assert said in str(done.exception)
        assert "-s" not in str(done.exception)
        assert done.stdout == ""


def test_of_a_journal_that_does_not_replay_nothing_is_said_of_another_policy(both, tmp_path):
    scenario, *_ = both
    built = build.replication(scenario, 0, journal_path=tmp_path / "whole.glow")
    built.world.start()
    built.world.run(scenario.duration_s + scenario.drain_s)
    other = ["controllers.balancer.use=power_of_two"]
    (found,) = replay(tmp_path / "whole.glow", scenario, other)
    assert found.proved
    assert not found.agreed
    broken = Journal(found.header, tmp_path / "broken.glow")
    from glowsim.core.journal import read

    for number, record in enumerate(read(tmp_path / "whole.glow").records()):
        if not (isinstance(record, Command) and number > 100):
            broken.pending.append(record)
        elif isinstance(record, Scale):
            broken.pending.append(record._replace(want=record.want + 1))
        else:
            broken.pending.append(record)
    broken.close()
    (found,) = replay(tmp_path / "broken.glow", scenario, other)
    assert found.difference is not None
    assert found.otherwise is None
    assert not found.proved
    assert "commands differ at event" in found.text
