"""What a client was given is in the journal on the disk by then, so its budget stays charged for it."""

from __future__ import annotations

import shutil

import pytest

from glowsim.core.journal import files_of, read
from glowsim.core.types import Answer, Fail

pytestmark = pytest.mark.usefixtures("_serving")
FAILING = """
  - agent: failing
    model: m
    instances: 1
    concurrency: 1
    service: {law: time, time: 1ms}
    failures: {error: 100%}
workload:"""
CHAT = {"model": "tax", "messages": [{"role": "user", "content": "Due?"}]}


@pytest.mark.parametrize(
    ("where", "body", "kind", "status"),
    [
        ("/v1/agents/tax/tasks", {"input": "Due?"}, Answer, 200),
        ("/v1/agents/tax/tasks", {"input": "Due?", "stream": True}, Answer, 200),
        ("/v1/chat/completions", CHAT, Answer, 200),
        ("/v1/chat/completions", CHAT | {"stream": True}, Answer, 200),
        ("/v1/agents/failing/tasks", {"input": "Due?"}, Fail, 502),
    ],
)
def test_an_answer_is_written_before_it_is_given(fleet, path, tmp_path, where, body, kind, status):
    async def test(client):
        for number in range(1, 4):
            headers = {"Authorization": f"Bearer {fleet.ANN}"}
            async with client.session.post(client.address + where, json=body, headers=headers) as response:
                assert response.status == status
                assert await response.read(), "to its end: that is what says that all of it was given"
            shutil.copy(files_of(path)[0], tmp_path / "copy")
            copy = read(tmp_path / "copy")
            assert not copy.torn
            assert len([each for each in copy.records() if isinstance(each, kind)]) == number

    text = fleet.TEXT.replace("\nworkload:", FAILING)
    fleet.serve(test, path, text=text, flush_every_s=3600.0)


def test_those_who_are_answered_at_once_share_a_write(fleet, path, monkeypatch):
    import asyncio

    from glowsim.core.journal import Journal

    flush, flushes = Journal.flush, []
    monkeypatch.setattr(Journal, "flush", lambda self: (flushes.append(1), flush(self)))

    async def test(client):
        driver = client.driver
        await driver.written()
        before = len(flushes)
        await asyncio.gather(*(driver.written() for _ in range(50)))
        assert len(flushes) == before + 1

    fleet.serve(test, path)


def test_a_journal_that_cannot_be_written_gives_no_answer(fleet, path, monkeypatch):
    from glowsim.core.journal import Journal

    def full(self):
        raise OSError(28, "No space left on device")

    async def test(client):
        monkeypatch.setattr(Journal, "flush", full)
        headers = {"Authorization": f"Bearer {fleet.ANN}"}
        where = client.address + "/v1/agents/tax/tasks"
        async with client.session.post(where, json={"input": "Due?"}, headers=headers) as response:
            assert response.status == 500
        assert client.driver.broken.is_set()
        monkeypatch.undo()

    fleet.serve(test, path)
