"""Daemons with a store on this thread's event loop, and what the tests of them share."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import pytest

from glowsim import build
from glowsim.core.journal import first_difference, read
from glowsim.core.streams import Streams
from glowsim.core.types import Changed, Observed
from glowsim.scenario import load

ROOT = Path(__file__).resolve().parents[3]
TEXT = """
title: A small fleet
question: Does what was acknowledged survive?
seed: 1
duration: 10s
models:
  m: {input: $1/1M, output: $2/1M}
fleet:
  - agent: tax
    model: m
    instances: 2
    concurrency: 4
    variants: {new: {slowdown: 1.0}}
    service: {law: time, time: 1ms}
    controllers:
      scaler: {use: hpa, target: 0.7, max_instances: 9}
      splitter: {use: canary, salt: v2, weight: 0.5, then: [1.0], hold: 1h, outcome: observed}
      limiter: {use: budget, limit: 1000000, every: 1h, of: tokens, per: tenant}
  - agent: plain
    model: m
    instances: 1
    concurrency: 4
    service: {law: time, time: 1ms}
    controllers:
      cache: {use: lru, entries: 10, ttl: 1h}
workload:
  - {kind: poisson, rate: 1/s, agents: all, tokens_in: 100, tokens_out: 20}
"""
ANN, BOB, TOKEN = "ann-key-0123456789", "bob-key-0123456789", "admin-0123456789abc"
KEYS = {"GLOWSIM_KEYS": f"ann@acme:{ANN},amy@acme:{ANN[::-1]},bob@beta:{BOB}", "GLOWSIM_ADMIN_TOKEN": TOKEN}


class Client:
    """Asks a daemon; everything comes back as (status, JSON)."""

    def __init__(self, address, admin_address, session, driver=None):
        self.address, self.admin_address, self.session, self.driver = address, admin_address, session, driver

    async def ask(self, method, path, body=None, key=ANN, admin=False, raw=False, **headers):
        where = self.admin_address if admin else self.address
        token = TOKEN if admin else key
        headers = {"Authorization": f"Bearer {token}"} | headers
        async with self.session.request(method, where + path, json=body, headers=headers) as response:
            read = await response.read()
            return response.status, read if raw else json.loads(read)

    async def task(self, agent="tax", key=ANN):
        """Have a task done; return its request's number."""
        status, said = await self.ask("POST", f"/v1/agents/{agent}/tasks", {"input": "Due?"}, key)
        assert status == 200, said
        return said["id"]

    async def rate(self, request_id, key=ANN, admin=False, **given):
        body = {"request_id": request_id} | (given or {"kind": "rating", "value": 5})
        return await self.ask("POST", "/v1/feedback", body, key, admin)

    async def admin(self, method, path, body=None, **headers):
        return await self.ask(method, path, body, admin=True, **headers)


def plane(text=TEXT):
    return build.control_plane(load(text), Streams(load(text).seed), fall_back=True)


def told(path):
    """Return what a journal says the control plane heard: feedback and orders; it must replay."""
    recording = read(path)
    assert first_difference(recording, plane()) is None
    return recording.loose(Observed), recording.loose(Changed)


def rows(path, query, *given):
    """Read the store beside a journal."""
    with closing(sqlite3.connect(path.with_name(path.name + ".db"))) as database:
        return database.execute(query, given).fetchall()


def serve(test, path, text=TEXT, environment=KEYS, again=None, **given):
    """Run a test against a daemon on this thread's event loop; return what its control plane heard."""
    import aiohttp

    from glowsim.live.daemon import serving
    from glowsim.live.settings import settings

    chosen = settings(environment=environment, journal_path=path, port=0, admin_port=0, grace_s=4.0, **given)

    async def main():
        async with (
            asyncio.timeout(30.0),
            serving(load(text), chosen, again=again) as daemon,
            aiohttp.ClientSession() as session,
        ):
            await test(Client(daemon.address, daemon.admin_address, session, daemon.driver))

    asyncio.run(main())
    if text == TEXT and again is None:
        return told(path)
    return None


@pytest.fixture(scope="session")
def fleet():
    """The helpers above, by name."""
    return SimpleNamespace(
        serve=serve, plane=plane, client=Client, told=told, rows=rows, TEXT=TEXT, ANN=ANN, AMY=ANN[::-1], BOB=BOB,
        TOKEN=TOKEN, KEYS=KEYS, ROOT=ROOT,
    )  # fmt: skip


@pytest.fixture
def path(tmp_path):
    return tmp_path / "fleet.journal"
