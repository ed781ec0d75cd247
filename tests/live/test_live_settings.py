"""Settings: what is refused, and that no secret is repeated."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from glowsim.live.settings import Caller, Settings, SettingsError, settings

KEY = "0123456789abcdef"
TOKEN = "fedcba9876543210"


def made(environment=None, **given):
    return settings(environment=environment or {}, journal_path="some.journal", **given)


def test_a_key_belongs_to_a_user_and_a_tenant():
    some = made({"GLOWSIM_KEYS": f"ann@acme:{KEY}, bob:{TOKEN}"})
    assert {caller: key.get_secret_value() for caller, key in some.keys.items()} == {
        Caller("ann", "acme"): KEY,
        Caller("bob", "default"): TOKEN,
    }


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.7", "example.org"])
def test_an_address_that_others_reach_needs_keys_and_a_token(host):
    for environment in ({}, {"GLOWSIM_KEYS": f"a:{KEY}"}, {"GLOWSIM_ADMIN_TOKEN": TOKEN}):
        with pytest.raises(
            SettingsError, match=r"set GLOWSIM_KEYS \(or live.tokens\) and GLOWSIM_ADMIN_TOKEN"
        ):
            made(environment, host=host)
    both = {"GLOWSIM_KEYS": f"a:{KEY}", "GLOWSIM_ADMIN_TOKEN": TOKEN}
    assert not made(both, host=host).loopback


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_loopback_needs_none(host):
    some = made(host=host)
    assert some.loopback
    assert some.is_admin("")


def test_with_a_token_only_the_token_is_the_admins():
    some = made({"GLOWSIM_ADMIN_TOKEN": TOKEN})
    assert some.is_admin(TOKEN)
    assert not some.is_admin("")
    assert not some.is_admin(TOKEN + "x")


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ("ann", "entry 1 is not of the form"),
        (f"a:{KEY},:{KEY}", "entry 2 is not of the form"),
        ("ann:hunter2", "fewer than 16 characters"),
        (f"a:{KEY},a:{TOKEN}", "has two keys"),
    ],
)
def test_a_bad_key_is_refused_and_not_repeated(keys, said):
    with pytest.raises(SettingsError, match=said) as error:
        made({"GLOWSIM_KEYS": keys})
    for secret in ("hunter2", KEY, TOKEN):
        assert secret not in str(error.value)


def test_secrets_are_not_shown():
    some = made({"GLOWSIM_KEYS": f"ann:{KEY}", "GLOWSIM_ADMIN_TOKEN": TOKEN})
    assert KEY not in repr(some) + str(some.model_dump())
    assert TOKEN not in repr(some) + some.model_dump_json()


def test_not_even_the_models_own_error_repeats_a_secret():
    with pytest.raises(ValidationError) as error:
        Settings(journal_path="j", admin_token="hunter2", keys={Caller("a", "b"): "hunter3"})
    assert "hunter" not in str(error.value)


@pytest.mark.parametrize(
    ("given", "place"),
    [
        ({"port": 70_000}, "port"),
        ({"grace_s": 0.0}, "grace_s"),
        ({"upstreams": {"tax": ["ftp://x"]}}, "upstreams.tax"),
        ({"upstreams": {"tax": []}}, "upstreams"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_bad_value_names_its_place(given, place):
    with pytest.raises(SettingsError, match=f"^{place}"):
        made(**given)
