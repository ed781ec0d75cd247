"""A log much of which cannot be read: nothing is recommended until it can be again."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path

import pytest

from glowsim.live.advice.rows import Rows

pytestmark = pytest.mark.usefixtures("_serving")

BROKEN = '{"t_s": "2026-11-22T12:00:00Z", "tokens\n'
BUSY = {"scaler": {"use": "agent_scaler", "scale_up": 0.8, "min_instances": 1, "max_instances": 20}}


@pytest.mark.parametrize(("broken", "silent"), [(10, False), (11, True)])
def test_more_than_ten_of_the_last_hundred_rows_are_too_many(beside, broken, silent):
    place = beside.place(beside.fleet(BUSY))
    place.write(*[BROKEN] * broken, *beside.steady(2.0, 20.0, until_s=40.0))

    async def main():
        place.now_s = 100.0
        async with place.advisor() as advice:
            advice.listener.look()
            return advice.listener.heard()["silent"], list(advice.recommendations.newest())

    said, found = asyncio.run(main())
    assert (said is not None) is silent
    assert bool(found) is not silent


def test_it_says_since_when_and_why_and_goes_on_by_itself_with_what_stands_by_then(beside, capsys, caplog):
    import aiohttp

    caplog.set_level(logging.WARNING)
    place = beside.place(beside.fleet(BUSY))

    async def main():
        async with place.advisor() as advice, aiohttp.ClientSession(advice.admin_address) as session:

            async def get(path):
                async with session.get(path) as response:
                    return await response.text()

            async def at(now_s, *rows):
                place.now_s = now_s
                place.write(*rows)
                advice.listener.look()
                return json.loads(await get("/v1/recommendations?standing=true")), capsys.readouterr().out

            before, printed = await at(200.0, *beside.steady(1.0, 20.0, until_s=100.0))
            assert [each["kind"] for each in before["recommendations"]] == ["scale"]
            assert before["heard"]["silent"] is None
            assert "have " in printed
            assert "glowsim_advice_silent 0" in await get("/metrics")

            # Every other row is lost, so the fleet seems to be half as busy as it is.
            halved = [
                text
                for row in beside.steady(2.0, 20.0, since_s=100.0, until_s=160.0)
                for text in (row, BROKEN)
            ]
            during, printed = await at(300.0, *halved)
            assert (during["recommendations"], printed) == ([], "")
            silent = during["heard"]["silent"]
            assert silent["since"] == "2026-11-22T12:05:00Z"
            assert "50 of the last 100 rows of" in silent["why"]
            metrics = await get("/metrics")
            assert "glowsim_advice_silent 1" in metrics
            assert 'glowsim_recommendations_standing{agent="tax",kind="scale"} 0' in metrics

            still, printed = await at(310.0, *beside.steady(1.0, 20.0, since_s=160.0, until_s=230.0))
            assert (still["recommendations"], printed) == ([], ""), "15 of the last 100 are still unreadable"

            after, printed = await at(400.0, *beside.steady(2.0, 20.0, since_s=230.0, until_s=330.0))
            assert after["heard"]["silent"] is None
            assert [each["kind"] for each in after["recommendations"]] == ["scale"]
            assert after["recommendations"][0]["advice"] in printed

    asyncio.run(main())
    said = [each.getMessage() for each in caplog.records if each.name == "glowsim.live.advice.listener"]
    stopped, resumed = said
    assert stopped.startswith("nothing is recommended any more: 50 of the last 100 rows of ")
    assert resumed.startswith("recommendations go on after 100 s: 0 of the last 100 rows of ")


def test_rows_that_are_no_calls_and_repeated_ones_are_readable():
    rows = Rows(Path("spend.jsonl"), "csv")
    good = (
        '{"t_s": "2026-11-22T20:00:00Z", "tokens_in": 9, "tokens_out": 3, "latency_s": 1.5, "agent": "tax"}'
    )
    for line in [BROKEN] * 7 + [good] * 96:
        list(rows.calls(line))
    assert (rows.unreadable, rows.counts["refused"]) == (4, 7)
