"""Feedback over real sockets: who may say what, told once, joined with what was decided, kept over restarts."""

from __future__ import annotations

import asyncio
import json
import shutil

import pytest

from glowsim.core.journal import Journal, files_of, read
from glowsim.core.snapshot import pack
from glowsim.core.types import Arrived, Dispatch, Observed

pytestmark = pytest.mark.usefixtures("_serving")


def test_feedback_is_kept_and_told_once_with_what_was_decided(fleet, path):
    given = [
        {"kind": "rating", "value": 2},
        {"kind": "correction", "tag": "amount"},
        {"kind": "complaint"},
    ]

    async def test(client):
        request_id = await client.task()
        answers = [await client.rate(request_id, **each) for each in given]
        assert [status for status, _ in answers] == [201] * 3
        assert [said["repeated"] for _, said in answers] == [False] * 3

    heard, _ = fleet.serve(test, path)
    assert [(each.metric, each.value) for each in heard] == [
        ("rating", 2.0),
        ("correction", 1.0),
        ("complaint", 1.0),
    ]
    recording = read(path)
    (arrived,) = [each for each in recording.records() if isinstance(each, Arrived)]
    (dispatch,) = [each for each in recording.records() if isinstance(each, Dispatch)]
    request = arrived.request
    assert {(each.request_id, each.agent, each.variant) for each in heard} == {
        (request.request_id, request.agent, dispatch.plan.variant)
    }
    assert {(each.unit, each.assigned_s) for each in heard} == {(request.request_id, arrived.t_s)}, (
        "the canary assigned the request itself, on its arrival"
    )
    kept = fleet.rows(path, "SELECT feedback_id, kind, value, tag, text FROM feedback ORDER BY feedback_id")
    assert [row[1:] for row in kept] == [
        ("rating", 2.0, None, None),
        ("correction", 1.0, "amount", None),
        ("complaint", 1.0, None, None),
    ]
    assert [each.feedback_id for each in heard] == [row[0] for row in kept]


def test_an_answer_from_the_cache_is_rated_as_what_it_is(fleet, path):
    async def test(client):
        for answered in ("own", "cached"):
            headers = {"Authorization": f"Bearer {fleet.ANN}", "X-Glowsim-Cache": "true"}
            where = client.address + "/v1/agents/plain/tasks"
            async with client.session.post(where, json={"input": "Due?"}, headers=headers) as response:
                said = await response.json()
            assert (response.status, said["answered"]) == (200, answered)
            assert (await client.rate(said["id"]))[0] == 201

    first, second = fleet.serve(test, path)[0]
    assert (first.request_id, second.request_id) == (1, 2)
    assert {(each.agent, each.variant, each.assigned_s) for each in (first, second)} == {(1, 0, None)}


def test_a_caller_rates_requests_of_its_own_tenant_only(fleet, path):
    async def test(client):
        request_id = await client.task(key=fleet.ANN)
        status, said = await client.rate(request_id, key=fleet.BOB)
        assert (status, said["error"]["code"]) == (404, 404)
        unknown = (await client.rate(request_id + 7))[1]["error"]["message"]
        other = said["error"]["message"]
        assert other.replace(str(request_id), "N") == unknown.replace(str(request_id + 7), "N"), (
            "what is another's looks as what is not there"
        )
        assert (await client.rate(request_id, key=fleet.AMY))[0] == 201, "of the same tenant"
        assert (await client.rate(request_id, admin=True))[0] == 201
        assert (await client.rate(request_id, key="nobody-0123456789"))[0] == 401

    heard, _ = fleet.serve(test, path)
    assert len(heard) == 2


def test_a_repeat_is_taken_once_and_a_reused_key_refused(fleet, path):
    async def test(client):
        request_id = await client.task()
        once = {"kind": "rating", "value": 4, "idempotency_key": "k"}
        answers = await asyncio.gather(*(client.rate(request_id, **once) for _ in range(8)))
        assert sorted(status for status, _ in answers) == [200] * 7 + [201]
        assert len({said["id"] for _, said in answers}) == 1
        status, said = await client.rate(request_id, **once | {"value": 1})
        assert (status, "came before" in said["error"]["message"]) == (409, True)
        other, _ = await client.rate(request_id, key=fleet.AMY, **once)
        assert other == 201, "somebody else's key is another key"

    heard, _ = fleet.serve(test, path)
    assert len(heard) == 2


@pytest.mark.parametrize(
    ("status", "given", "said"),
    [
        (400, {"kind": "rating"}, "a rating has a 'value' from 1 to 5"),
        (400, {"kind": "rating", "value": 5.5}, "from 1 to 5"),
        (400, {"kind": "complaint", "value": 1}, "a complaint has no 'value'"),
        (400, {"kind": "praise"}, "kind"),
        (400, {"kind": "rating", "value": 1, "colour": "red"}, "colour"),
        (400, {"kind": "complaint", "tag": "not a tag"}, "tag"),
        (400, {"kind": "complaint", "text": "it was rude"}, "keeps no texts"),
        (400, {"kind": "complaint", "idempotency_key": "x" * 201}, "idempotency_key"),
        (403, {"kind": "label", "value": 1, "tag": "error"}, "admin's side"),
    ],
)
def test_what_is_no_feedback_is_refused_and_not_kept(fleet, path, status, given, said):
    async def test(client):
        request_id = await client.task()
        found, answer = await client.rate(request_id, **given)
        assert (found, said in answer["error"]["message"]) == (status, True), answer
        found, answer = await client.ask("POST", "/v1/feedback", {"request_id": 2**63, "kind": "complaint"})
        assert found == 400
        assert (await client.ask("GET", "/v1/feedback"))[0] == 405

    heard, _ = fleet.serve(test, path)
    assert heard == []
    assert fleet.rows(path, "SELECT count(*) FROM feedback") == [(0,)]


def test_nobody_fills_the_disk_with_opinions_on_one_answer(fleet, path):
    async def test(client):
        request_id = await client.task()
        statuses = [(await client.rate(request_id))[0] for _ in range(18)]
        assert statuses == [201] * 16 + [429] * 2

    fleet.serve(test, path)


def test_texts_are_kept_only_where_that_is_set(fleet, path):
    async def test(client):
        request_id = await client.task()
        assert (await client.rate(request_id, kind="correction", text="It is 7, not 9"))[0] == 201

    fleet.serve(test, path, keep_text=True)
    assert fleet.rows(path, "SELECT text FROM feedback") == [("It is 7, not 9",)]
    assert b"It is 7" not in files_of(path)[0].read_bytes()


def test_an_admins_label_feeds_a_canary_that_watches_labels(fleet, path):
    async def test(client):
        request_id = await client.task()
        label = {"kind": "label", "tag": "error", "value": 1}
        assert (await client.rate(request_id, admin=True, **label))[0] == 201

    heard, _ = fleet.serve(test, path)
    assert [(each.metric, each.value) for each in heard] == [("error", 1.0)]
    assert heard[0].propensity == 0.5, "the canary has half of the units from the start"


def test_feedback_comes_late_after_a_restart_and_on_what_memory_forgot(fleet, path, monkeypatch):
    monkeypatch.setattr("glowsim.live.daemon._MEMORY", 1)
    ids = []

    async def before(client):
        ids.extend([await client.task() for _ in range(5)])

    async def after(client):
        first = await client.task()
        assert first not in ids
        for request_id in ids:
            assert (await client.rate(request_id))[0] == 201
        assert (await client.rate(ids[0], key=fleet.BOB))[0] == 404

    fleet.serve(before, path)
    heard, _ = fleet.serve(after, path)
    assert [each.request_id for each in heard] == ids


def test_what_the_journal_lost_is_told_after_the_restart_and_nothing_twice(fleet, path):
    """Cut the journal's last frames, as a kill would have: the store has the feedback, the control plane has not."""
    frames = []

    async def test(client):
        request_id = await client.task()
        for value in range(1, 6):
            await client.rate(request_id, kind="rating", value=value)
            client.driver.flush()
            frames.append(files_of(path)[0].stat().st_size)

    async def nothing(client):
        pass

    fleet.serve(test, path)
    whole = files_of(path)[0].read_bytes()
    for kept, size in enumerate(frames, start=1):
        for segment in files_of(path):
            segment.unlink()
        (path / "00000001.glow").write_bytes(whole[:size])
        assert [each.value for each in fleet.told(path)[0]] == [float(v) for v in range(1, kept + 1)]
        for _ in range(2):
            heard, _ = fleet.serve(nothing, path)
            assert [each.value for each in heard] == [1.0, 2.0, 3.0, 4.0, 5.0]


def test_a_journal_that_starts_afresh_is_told_nothing_of_before(fleet, path):
    async def test(client):
        ids.append(await client.task())
        await client.rate(ids[-1])

    async def later(client):
        status, _ = await client.rate(ids[0])
        assert status == 404
        assert await client.task() not in ids

    ids = []
    fleet.serve(test, path)
    shutil.rmtree(path)
    heard, _ = fleet.serve(later, path)
    assert heard == []


def test_a_journal_of_the_version_before_is_gone_on_with(fleet, path):
    """Version 3 had no numbers of feedback and orders, and no name of its own."""

    async def test(client):
        request_id = await client.task()
        client.driver.observe(request_id, "rating", 5.0)

    async def nothing(client):
        pass

    fleet.serve(test, path)
    recording = read(path)
    blocks, code = dict(recording._blocks), 10
    blocks[code] = b""
    for event in recording.loose(Observed):
        text = json.dumps(pack(event)).encode()
        shorter = json.loads(text)
        assert shorter["is"][-2:] == [0, event.assigned_s]
        del shorter["is"][-2:]
        text = json.dumps(shorter).encode()
        blocks[code] += len(text).to_bytes(4, "little") + text
    header = {name: value for name, value in recording.header.items() if name != "id"} | {"version": 3}
    header.pop("segment")
    shutil.rmtree(path)
    old = Journal(header, path)
    old._order += recording._order
    for number, block in blocks.items():
        old._blocks[number] += block
    old.close()
    path.with_name(path.name + ".db").unlink()
    path_bytes = path.read_bytes()
    assert b'"version":3' in path_bytes
    heard, _ = fleet.serve(nothing, path)
    assert [(each.metric, each.feedback_id) for each in heard] == [("rating", 0)]
    first, second = files_of(path)
    assert first.read_bytes() == path_bytes
    assert read(second).header["version"] == 5
