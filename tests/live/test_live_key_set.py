"""Keys of a token issuer by URL: fetched, refreshed, bounded, and kept when the issuer is gone."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from functools import cache

import pytest
from loopback import answering

from glowsim.scenario import ScenarioError, load

pytestmark = pytest.mark.usefixtures("_serving")

TEXT = """
title: t
question: q
seed: 1
duration: 10s
models:
  m: {input: $1/1M, output: $2/1M}
fleet:
  - {agent: tax, model: m, instances: 1, concurrency: 9, service: {law: time, time: 1ms}}
workload:
  - {kind: poisson, rate: 1/s, agents: all, tokens_in: 10, tokens_out: 5}
"""
DEADLINE_S = 30.0


@cache
def private(name, kind):
    """Return a private key; the same one for the same name."""
    from cryptography.hazmat.primitives.asymmetric import ec, rsa

    return ec.generate_private_key(ec.SECP256R1()) if kind == "ec" else rsa.generate_private_key(65537, 2048)


def jwk(name, kind="ec", **more):
    from jwt.algorithms import ECAlgorithm, RSAAlgorithm

    of = ECAlgorithm if kind == "ec" else RSAAlgorithm
    return of.to_jwk(private(name, kind).public_key(), as_dict=True) | {"kid": name} | more


def token(name, **claims):
    import jwt

    said = {"iss": "idp", "aud": "glowsim", "sub": "ann", "tenant": "acme", "exp": time.time() + 600} | claims
    return jwt.encode(said, private(name, "ec"), algorithm="ES256", headers={"kid": name})


class Issuer:
    """Publishes keys, or whatever else it is told to; counts who asks."""

    def __init__(self, *names):
        self.says = [jwk(name) for name in names]
        self.body = None
        self.status = 200
        self.headers = {}
        self.asked = 0
        self.go_on = None

    async def answer(self, request):
        from aiohttp import web

        self.asked += 1
        if self.go_on is not None:
            await self.go_on.wait()
        body = json.dumps({"keys": self.says}) if self.body is None else self.body
        return web.Response(text=body, status=self.status, headers=self.headers)


def with_keys(issuer, test):
    """Run a test with the keys of an issuer, over a real socket, and a clock that it sets."""
    import aiohttp

    from glowsim.live.key_set import KeySet

    async def main():
        now_s, believed = [1000.0], {}
        async with (
            asyncio.timeout(DEADLINE_S),
            answering(issuer.answer) as url,
            aiohttp.ClientSession() as session,
        ):

            def changed(keys):
                believed.clear()
                believed.update(keys)

            key_set = KeySet(url, "ES256", session, changed, clock=lambda: now_s[0])
            try:
                await test(key_set, believed, now_s)
            finally:
                await key_set.close()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("stated", "lasts_s"),
    [
        ({}, 600.0),
        ({"Cache-Control": "public, max-age=3600, must-revalidate"}, 3600.0),
        ({"Cache-Control": "max-age=0"}, 60.0),
        ({"Cache-Control": "Max-Age=9999999999"}, 86400.0),
        ({"Cache-Control": "s-max-age=7, no-store"}, 600.0),
        ({"Cache-Control": "max-age=soon"}, 600.0),
    ],
)
def test_keys_are_fetched_and_are_good_for_as_long_as_their_issuer_says(stated, lasts_s):
    issuer = Issuer("one", "two")
    issuer.headers = stated

    async def test(key_set, believed, now_s):
        await key_set.refresh()
        assert (set(believed), key_set.keys) == ({"one", "two"}, 2)
        assert key_set._due_s == 1000.0 + lasts_s

    with_keys(issuer, test)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"status": 500}, "it answered with status 500"),
        ({"status": 302, "headers": {"Location": "/elsewhere"}}, "it answered with status 302"),
        ({"body": "x" * 300_000}, "it is longer than 262144 bytes"),
        ({"body": "{"}, "it is not JSON"),
        ({"body": "[" * 100_000}, "it is not JSON"),
        ({"body": "[]"}, "it is no JSON key set"),
        ({"body": '{"keys": {}}'}, "it is no JSON key set"),
        ({"says": []}, "it has no usable key with a 'kid' for ES256"),
        ({"says": [{"kid": str(n), "kty": "EC"} for n in range(101)]}, "it has 101 keys, more than 100"),
    ],
)
def test_when_they_cannot_be_had_the_old_ones_go_on_and_it_is_said_once(change, why, caplog):
    issuer = Issuer("one")

    async def test(key_set, believed, now_s):
        await key_set.refresh()
        usual = {name: getattr(issuer, name) for name in change}
        vars(issuer).update(change)
        await key_set.refresh()
        await key_set.refresh()
        assert (set(believed), key_set.keys) == ({"one"}, 1)
        assert key_set.fetches == {"ok": 1, "failed": 2}
        assert key_set._due_s == 1010.0, "tried again soon"
        vars(issuer).update(usual)
        await key_set.refresh()
        assert 'glowsim_jwks_fetches_total{result="failed"} 2\n' in key_set.metrics()
        assert "glowsim_jwks_keys 1\n" in key_set.metrics()

    with_keys(issuer, test)
    failed, again = [each.getMessage() for each in caplog.records if each.name == "glowsim.live.key_set"]
    assert why in failed
    assert failed.endswith("; its last 1 go on")
    assert again.endswith("could be fetched again")


def test_an_issuer_that_does_not_answer_in_time_or_is_gone_is_a_fetch_that_failed(monkeypatch, unused_port):
    import aiohttp

    from glowsim.live import key_set as module

    monkeypatch.setattr(module, "_WITHIN_S", 0.05)
    issuer = Issuer("one")
    issuer.go_on = asyncio.Event()

    async def test(key_set, believed, now_s):
        await key_set.refresh()
        assert key_set.fetches == {"ok": 0, "failed": 1}

    with_keys(issuer, test)

    async def gone():
        async with aiohttp.ClientSession() as session:
            key_set = module.KeySet(f"http://127.0.0.1:{unused_port}", "ES256", session, lambda keys: None)
            await key_set.refresh()
            assert key_set.fetches == {"ok": 0, "failed": 1}

    asyncio.run(gone())


def test_unknown_keys_are_looked_for_once_a_minute_and_by_one_fetch_for_all():
    issuer = Issuer("one")

    async def test(key_set, believed, now_s):
        await key_set.refresh()
        await asyncio.gather(*(key_set.look() for _ in range(20)))
        assert issuer.asked == 2
        now_s[0] += 59.9
        assert not key_set.may_look()
        await key_set.look()
        assert issuer.asked == 2
        now_s[0] += 0.1
        await key_set.look()
        assert issuer.asked == 3

    with_keys(issuer, test)


def test_they_are_fetched_again_and_again_as_they_age(monkeypatch):
    from glowsim.live import key_set as module

    monkeypatch.setattr(module, "_SOONEST_S", 0.01)
    issuer = Issuer("one")
    issuer.headers = {"Cache-Control": "max-age=0"}

    async def test(key_set, believed, now_s):
        key_set._clock = time.monotonic
        await key_set.open()
        while issuer.asked < 3:
            await asyncio.sleep(0)

    with_keys(issuer, test)


def test_keys_that_an_algorithm_cannot_use_are_passed_over():
    from glowsim.live.key_set import keys_in

    mixed = [
        jwk("good"), jwk("rsa", "rsa"), jwk("enc", use="enc"), jwk("p384") | {"crv": "P-384"}, jwk("odd") | {"x": "!"},
        {key: value for key, value in jwk("unnamed").items() if key != "kid"}, jwk("empty") | {"kid": ""},
        {"kty": "oct", "kid": "secret", "k": "c2VjcmV0"}, "no key", None,
    ]  # fmt: skip
    text = json.dumps({"keys": mixed})
    assert set(keys_in(text, "ES256")) == {"good"}
    assert set(keys_in(text, "RS256")) == {"rsa"}


@pytest.mark.parametrize(
    ("url", "fine"),
    [
        ("https://idp.example/keys?p=policy", True),
        ("http://127.0.0.1:9/keys", True),
        ("http://localhost/keys", True),
        ("http://idp.example/keys", False),
        ("http://127.0.0.1.evil.example/keys", False),
        ("file:///etc/passwd", False),
        ("https://user:password@idp.example/keys", False),
        ("https:///keys", False),
    ],
)
def test_where_they_may_come_from(url, fine):
    tokens = {"issuer": "idp", "audience": "glowsim", "algorithm": "ES256", "keys_url": url}
    text = TEXT + f"live: {json.dumps({'tokens': tokens})}\n"
    if fine:
        assert load(text).live.tokens.keys_url == url
    else:
        with pytest.raises(ScenarioError, match=r"live\.tokens\.keys_url"):
            load(text)


@pytest.mark.parametrize(
    "fields",
    [
        {"algorithm": "ES256"},
        {"algorithm": "ES256", "keys_url": "https://a", "keys_file": "b"},
        {"algorithm": "HS256", "keys_url": "https://a"},
        {"algorithm": "HS256", "keys_url": "https://a", "secret_env": "S"},
    ],
)
def test_there_is_one_place_where_keys_come_from(fields):
    text = TEXT + f"live: {json.dumps({'tokens': {'issuer': 'idp', 'audience': 'g'} | fields})}\n"
    with pytest.raises(ScenarioError, match="one of 'keys_file' and 'keys_url'"):
        load(text)


def test_a_daemon_believes_new_keys_at_once_old_ones_no_more_and_goes_on_without_its_issuer(tmp_path, caplog):
    import aiohttp

    from glowsim.live.daemon import serving
    from glowsim.live.settings import settings

    caplog.set_level(logging.DEBUG)
    issuer, sent = Issuer("old"), []

    async def main():
        async with asyncio.timeout(DEADLINE_S), answering(issuer.answer) as url:
            tokens = {"issuer": "idp", "audience": "glowsim", "algorithm": "ES256", "keys_url": f"{url}/keys"}
            scenario = load(TEXT + f"live: {json.dumps({'tokens': tokens})}\n")
            chosen = settings(
                environment={}, journal_path=tmp_path / "j", port=0, admin_port=0, grace_s=2.0, tokens=True
            )
            async with (
                serving(scenario, chosen) as daemon,
                aiohttp.ClientSession() as session,
            ):

                async def status(text):
                    sent.append(text)
                    headers = {"Authorization": f"Bearer {text}"}
                    asked = {"input": "hi"}
                    where = f"{daemon.address}/v1/agents/tax/tasks"
                    async with session.post(where, json=asked, headers=headers) as response:
                        return response.status

                first, unknown = token("old"), token("new")
                assert [await status(first), await status(first), issuer.asked] == [200, 200, 1]
                assert await status("no token") == 401
                assert issuer.asked == 1
                issuer.says = [jwk("new")]
                assert await status(unknown) == 200, "looked for before it is answered"
                assert issuer.asked == 2
                assert await status(first) == 401, "its key is gone, though it was believed before"
                assert await status(token("mallory")) == 401
                assert issuer.asked == 2, "once a minute"
                issuer.status = 503
                async with session.get(f"{daemon.admin_address}/metrics") as response:
                    assert 'glowsim_jwks_fetches_total{result="ok"} 2' in await response.text()
                assert await status(token("new", sub="bob")) == 200

    asyncio.run(main())
    assert not [text for text in sent[:-1] if text != "no token" and text in caplog.text]
