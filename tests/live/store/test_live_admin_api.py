"""The admin's API: what it shows is so, what it orders happens and is in the audit, and its document is valid."""

from __future__ import annotations

import asyncio
import json

import pytest

from glowsim.core.errors import GlowsimError
from glowsim.core.journal import files_of, first_difference, read
from glowsim.core.types import Advance, Answer, ChangeKind, Effect
from glowsim.experiment.replaying import replay
from glowsim.fuzz.journals import check_journals
from glowsim.scenario import load

pytestmark = pytest.mark.usefixtures("_serving")


async def until(check):
    """Wait until something holds; the test's own deadline ends what never does."""
    while not await check():
        await asyncio.sleep(0.001)


def test_agents_and_their_instances_are_shown(fleet, path):
    async def test(client):
        for _ in range(3):
            await client.task()
        status, said = await client.admin("GET", "/v1/agents")
        assert (status, said["ready"], said["open"]) == (200, 3, 0)
        assert set(said["agents"]) == {"tax", "plain"}
        tax = said["agents"]["tax"]
        assert (tax["outcomes"], tax["emulated"], tax["latency_s"]["n"]) == ({"answered": 3}, True, 3)
        assert said["cost_usd"] == pytest.approx(tax["cost_usd"])
        status, one = await client.admin("GET", "/v1/agents/tax")
        assert [each["state"] for each in one["instances"]] == ["ready", "ready"]
        assert {each["slots"] for each in one["instances"]} == {4}
        assert (await client.admin("GET", "/v1/agents/nobody"))[0] == 404

    fleet.serve(test, path)


def test_a_size_is_set_and_obeyed_and_kept_over_a_restart(fleet, path):
    async def size(client):
        return (await client.admin("GET", "/v1/agents/plain/scaling"))[1]

    async def test(client):
        assert (await size(client))["ready"] == 1
        status, said = await client.admin("PUT", "/v1/agents/plain/scaling", {"instances": 3})
        assert (status, said["repeated"]) == (200, False)
        assert said["scaling"]["ready"] + said["scaling"]["starting"] == 3

        async def grown():
            return (await size(client))["ready"] == 3

        await until(grown)
        assert (await client.admin("PUT", "/v1/agents/plain/scaling", {"instances": 2}))[0] == 200

    async def again(client):
        now = await size(client)
        assert now["ready"] + now["starting"] == 2

    _, orders = fleet.serve(test, path)
    assert [(each.change.kind, each.change.value) for each in orders] == [
        (ChangeKind.SET_INSTANCES, 3.0), (ChangeKind.SET_INSTANCES, 2.0),
    ]  # fmt: skip
    fleet.serve(again, path)


def test_a_scaler_is_paused_and_resumed_also_over_a_restart(fleet, path):
    async def test(client):
        status, said = await client.admin("PUT", "/v1/agents/tax/scaling", {"instances": 5, "paused": True})
        assert (status, said["scaling"]["paused"], said["scaling"]["scaler"]) == (200, True, True)

    async def later(client):
        status, said = await client.admin("GET", "/v1/agents/tax/scaling")
        assert (said["paused"], said["ready"] + said["starting"]) == (True, 5)
        status, said = await client.admin("PUT", "/v1/agents/tax/scaling", {"paused": False})
        assert (status, said["scaling"]["paused"]) == (200, False)

    fleet.serve(test, path)
    _, orders = fleet.serve(later, path)
    assert [each.change.kind for each in orders] == [
        ChangeKind.PAUSE_SCALING,
        ChangeKind.SET_INSTANCES,
        ChangeKind.RESUME_SCALING,
    ]
    assert [each.change.order_id for each in orders] == [1, 1, 2], "one order may hold several changes"


def test_every_order_is_in_the_audit_whatever_became_of_it(fleet, path):
    async def test(client):
        await client.admin("PUT", "/v1/agents/plain/scaling", {"instances": 2})
        status, said = await client.admin("POST", "/v1/rollouts/plain", {"action": "roll_back"})
        assert (status, said["error"]["message"]) == (409, "plain has no rollout")
        status, said = await client.admin("GET", "/v1/audit")
        rows = said["audit"]
        assert [(row["who"], row["what"], row["outcome"]) for row in rows] == [
            ("admin", "scaling of plain", "ordered"),
            ("admin", "rollout of plain", "refused: plain has no rollout"),
        ]
        assert (rows[0]["before"], rows[0]["after"]) == ({"instances": 1, "paused": False}, {"instances": 2})
        _, said = await client.admin("GET", f"/v1/audit?after={rows[0]['audit_id']}&limit=1")
        assert said["audit"] == rows[1:]

    _, orders = fleet.serve(test, path)
    assert len(orders) == 1


def test_a_repeated_order_is_obeyed_once(fleet, path):
    async def test(client):
        put = ("PUT", "/v1/agents/plain/scaling")
        key = {"Idempotency-Key": "grow"}
        answers = [await client.admin(*put, {"instances": 3}, **key) for _ in range(3)]
        assert [(status, said["audit_id"], said["repeated"]) for status, said in answers] == [
            (200, 1, False), (200, 1, True), (200, 1, True),
        ]  # fmt: skip
        assert (await client.admin(*put, {"instances": 4}, **key))[0] == 409
        assert (await client.admin(*put, {"instances": 4}, **{"Idempotency-Key": "x" * 201}))[0] == 400

    _, orders = fleet.serve(test, path)
    assert len(orders) == 1


def test_a_rollout_is_shown_and_rolled_back(fleet, path):
    async def test(client):
        await client.task()
        _, said = await client.admin("GET", "/v1/rollouts")
        assert said["rollouts"] == [{"agent": "tax", "stage": None, "weight": 0.5, "why": None}]
        status, said = await client.admin("POST", "/v1/rollouts/tax", {"action": "roll_back"})
        assert (status, said["rollout"]["stage"], said["rollout"]["weight"]) == (200, 0, 0.0)

    async def later(client):
        _, said = await client.admin("GET", "/v1/rollouts")
        assert [(each["stage"], each["weight"]) for each in said["rollouts"]] == [(0, 0.0)]
        assert "operator" in said["rollouts"][0]["why"]

    fleet.serve(test, path)
    fleet.serve(later, path)
    from glowsim.core.journal import read

    assert len([each for each in read(path).records() if isinstance(each, Advance)]) == 1


def test_budgets_say_what_their_keys_have_spent_also_after_a_restart(fleet, path):
    spent = []

    async def test(client):
        for key in (fleet.ANN, fleet.AMY, fleet.BOB):
            await client.task(key=key)
        await look(client)

    async def look(client):
        _, said = await client.admin("GET", "/v1/budgets")
        (budget,) = said["budgets"]
        assert (budget["agents"], budget["of"], budget["per"]) == (["tax"], "tokens", "tenant")
        assert (budget["limit"], budget["every_s"], budget["keys"]) == (1e6, 3600.0, 2)
        spent.append({each["key"]: each["spent"] for each in budget["most"]})

    fleet.serve(test, path)
    fleet.serve(look, path)
    assert spent[0] == spent[1]
    (most, least) = sorted(spent[0].values(), reverse=True)
    assert most == 2 * least > 0, "two users of one tenant share its budget"


def test_the_journal_is_downloaded_as_far_as_it_is_written(fleet, path):
    got = []

    async def test(client):
        await client.task()
        status, data = await client.ask("GET", "/v1/journal", admin=True, raw=True)
        assert status == 200
        got.append(data)
        await client.task()

    fleet.serve(test, path)
    (segment,) = files_of(path)
    assert segment.read_bytes().startswith(got[0])
    segment.write_bytes(got[0])
    fleet.told(path)


def test_a_journal_of_many_segments_is_downloaded_as_one_that_replays(fleet, path, tmp_path):
    async def test(client):
        for _ in range(8):
            await client.task()
        assert len(files_of(path)) > 3
        status, data = await client.ask("GET", "/v1/journal", admin=True, raw=True)
        assert status == 200
        (tmp_path / "got.glow").write_bytes(data)

    fleet.serve(test, path, journal_records=10)
    got = read(tmp_path / "got.glow")
    assert len(got.table(Answer)) == 8
    assert first_difference(got, fleet.plane()) is None


def test_a_journal_without_its_beginning_replays_and_says_that_it_cannot_be_checked(fleet, path):
    async def test(client):
        for _ in range(8):
            await client.task()

    fleet.serve(test, path, journal_records=10)
    files_of(path)[0].unlink()
    scenario = load(fleet.TEXT)
    (replayed,) = replay(path, scenario)
    assert "every command equal" in replayed.text
    with pytest.raises(
        GlowsimError, match="begins with segment 2: the invariants are counted from the first"
    ):
        list(check_journals(path, scenario))


def test_minutes_add_up_over_restarts(fleet, path):
    async def test(client):
        for _ in range(4):
            await client.task()

    async def look(client):
        _, said = await client.admin("GET", "/v1/agents/tax/history?minutes=60")
        assert sum(row["answered"] for row in said["minutes"]) == 8
        assert all(row["latency_s_p95"] >= 0.001 * 0.99 for row in said["minutes"])
        assert sum(row["cost_usd"] for row in said["minutes"]) == pytest.approx(8 * (1 * 1e-6 + 20 * 2e-6))

    fleet.serve(test, path)
    fleet.serve(test, path)
    fleet.serve(look, path)


def test_feedback_is_listed(fleet, path):
    async def test(client):
        request_id = await client.task()
        await client.rate(request_id, kind="rating", value=3)
        status, said = await client.admin("GET", "/v1/feedback")
        (row,) = said["feedback"]
        assert (status, row["request_id"], row["agent"], row["value"]) == (200, request_id, "tax", 3.0)

    fleet.serve(test, path)


@pytest.mark.parametrize(
    ("status", "method", "where", "body", "said"),
    [
        (400, "PUT", "/v1/agents/plain/scaling", {}, "give 'instances', 'paused' or both"),
        (400, "PUT", "/v1/agents/plain/scaling", {"instances": -1}, "instances"),
        (400, "PUT", "/v1/agents/plain/scaling", {"instances": 1.5}, "instances"),
        (400, "PUT", "/v1/agents/plain/scaling", {"instances": 10**9}, "instances"),
        (400, "PUT", "/v1/agents/plain/scaling", {"paused": "yes"}, "paused"),
        (400, "PUT", "/v1/agents/plain/scaling", {"instances": 1, "colour": 1}, "colour"),
        (404, "PUT", "/v1/agents/nobody/scaling", {"instances": 1}, "no agent 'nobody'"),
        (400, "POST", "/v1/rollouts/tax", {"action": "stop"}, "roll_back"),
        (405, "DELETE", "/v1/audit", None, "Method Not Allowed"),
        (404, "GET", "/v1/nothing", None, "Not Found"),
        (400, "GET", "/v1/audit?limit=5000", None, "limit"),
        (400, "GET", "/v1/audit?colour=1", None, "colour"),
        (400, "GET", "/v1/agents/tax/history?minutes=0", None, "minutes"),
    ],
)
def test_what_is_no_order_is_refused_and_changes_nothing(fleet, path, status, method, where, body, said):
    async def test(client):
        found, answer = await client.admin(method, where, body)
        assert (found, answer["error"]["code"]) == (status, status)
        assert said in answer["error"]["message"], answer

    _, orders = fleet.serve(test, path)
    assert orders == []
    assert fleet.rows(path, "SELECT count(*) FROM audit") == [(0,)]


def test_bodies_are_bounded_and_must_be_json(fleet, path):
    async def test(client):
        where = client.admin_address + "/v1/agents/plain/scaling"
        token = {"Authorization": f"Bearer {fleet.TOKEN}"}
        for data, kind, status in [
            (b"{", "application/json", 400),
            (b"[" * 70_000, "application/json", 413),
            (b'{"instances": 1}', "text/plain", 415),
        ]:
            headers = token | {"Content-Type": kind}
            async with client.session.put(where, data=data, headers=headers) as response:
                assert (response.status, (await response.json())["error"]["code"]) == (status, status)

    fleet.serve(test, path)


def test_only_admins_may_look_and_order(fleet, path):
    async def test(client):
        for method, where, body in [
            ("GET", "/v1/agents", None), ("GET", "/v1/audit", None), ("GET", "/v1/journal", None),
            ("GET", "/openapi.json", None), ("PUT", "/v1/agents/plain/scaling", {"instances": 2}),
            ("POST", "/v1/feedback", {"request_id": 1, "kind": "complaint"}),
        ]:  # fmt: skip
            headers = {"Authorization": f"Bearer {fleet.ANN}"}
            url = client.admin_address + where
            async with client.session.request(method, url, json=body, headers=headers) as response:
                assert response.status == 401
        for where in ("/healthz", "/readyz"):
            async with client.session.get(client.admin_address + where) as response:
                assert response.status == 200
        assert (await client.ask("GET", "/v1/audit"))[0] == 404, "not on the data plane"

    _, orders = fleet.serve(test, path)
    assert orders == []


def test_without_a_token_a_page_of_the_web_cannot_order(fleet, path):
    async def test(client):
        where = client.admin_address + "/v1/agents/plain/scaling"
        async with client.session.put(
            where, json={"instances": 2}, headers={"Host": "evil.example"}
        ) as response:
            assert response.status == 403
        assert (await client.admin("PUT", "/v1/agents/plain/scaling", {"instances": 2}))[0] == 200
        _, said = await client.admin("GET", "/v1/audit")
        assert [row["who"] for row in said["audit"]] == ["local"]

    fleet.serve(test, path, environment={})


def test_a_daemon_that_drains_is_not_ready_and_takes_no_orders(fleet, path):
    async def test(client):
        await client.driver.close(1.0)
        assert await client.admin("GET", "/readyz") == (503, {"ready": False, "reason": "it is stopping"})
        status, _ = await client.admin("PUT", "/v1/agents/plain/scaling", {"instances": 2})
        assert status == 503

    _, orders = fleet.serve(test, path)
    assert orders == []


def test_the_document_is_valid_and_names_what_there_is(fleet, path):
    """By openapi-spec-validator, against the published schema of OpenAPI 3.1."""
    from openapi_spec_validator import validate

    from glowsim.live.admin_shapes import OPERATIONS

    told = []

    async def test(client):
        told.append((await client.admin("GET", "/openapi.json"))[1])
        for one in OPERATIONS:
            where = one.path.replace("{agent}", "plain")
            body = {} if one.body else None
            status, data = await client.ask(one.method, where, body, admin=True, raw=True)
            said = told[0]["paths"][one.path][one.method.lower()]["responses"]
            assert str(status) in said, (one.path, status)
            if one.body is None and not isinstance(one.answer, str):
                one.answer.model_validate(json.loads(data))

    fleet.serve(test, path)
    (document,) = told
    validate(document)
    assert document["openapi"] == "3.1.0"
    named = {(path, method.upper()) for path, methods in document["paths"].items() for method in methods}
    assert named == {(one.path, one.method) for one in OPERATIONS}
    names = [one["operationId"] for methods in document["paths"].values() for one in methods.values()]
    assert len(set(names)) == len(names)


def test_an_instance_at_a_fixed_address_cannot_be_scaled(fleet, path, unused_port):
    async def test(client):
        status, said = await client.admin("PUT", "/v1/agents/plain/scaling", {"instances": 2})
        assert (status, "fixed addresses" in said["error"]["message"]) == (409, True)
        assert (await client.admin("PUT", "/v1/agents/plain/scaling", {"paused": True}))[0] == 200

    fleet.serve(test, path, upstreams={"plain": (f"http://127.0.0.1:{unused_port}",)})


def test_effects_are_told_of_what_was_ordered(fleet, path):
    from glowsim.core.journal import Effected, read
    from glowsim.core.types import Scale

    async def test(client):
        await client.admin("PUT", "/v1/agents/plain/scaling", {"instances": 2})

        async def grown():
            return (await client.admin("GET", "/v1/agents/plain/scaling"))[1]["ready"] == 2

        await until(grown)

    fleet.serve(test, path)
    records = list(read(path).records())
    (scale,) = [each for each in records if isinstance(each, Scale) and each.agent == 1]
    assert scale.want == 2
    assert all(each.status != Effect.REFUSED for each in records if isinstance(each, Effected))
