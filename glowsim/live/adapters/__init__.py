"""How agents are reached: each module makes instances that a driver can serve calls with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module

import aiohttp

from glowsim.live.adapters.callable import of_function
from glowsim.live.adapters.http import Posts
from glowsim.live.adapters.http_json import http_json
from glowsim.live.adapters.openai_http import openai_http
from glowsim.live.calls import Checked, Serve
from glowsim.live.settings import SettingsError
from glowsim.scenario.live import CallableAgent, HttpJson, LiveAgent, OpenAIHttp

__all__ = ["Reach", "of_urls"]

_CHAT = "/chat/completions"


class Reach:
    """Makes an agent's instances; its key and its function are looked up at once.

    Parameters
    ----------
    spec
        How the agent is reached.
    environment
        Where its key is.
    timeout_s
        Longest time for a call, above 0.
    models
        The names of the models, by number.

    Raises
    ------
    SettingsError
        There is no such function, or a key is missing in the environment.
    """

    def __init__(
        self, spec: LiveAgent, environment: Mapping[str, str], *, timeout_s: float, models: Sequence[str]
    ) -> None:
        self.spec = spec
        self._timeout_s = timeout_s
        self._models = models
        self._function = of_function(_function(spec.use)) if isinstance(spec, CallableAgent) else None
        self._key: str | None = None
        if not isinstance(spec, CallableAgent) and spec.key_env is not None:
            self._key = environment.get(spec.key_env)
            if not self._key:
                raise SettingsError(f"the environment variable {spec.key_env} must hold the key of an agent")

    @property
    def urls(self) -> tuple[str, ...]:
        """Where its instances are from the beginning; empty where they are not at fixed places."""
        return () if isinstance(self.spec, CallableAgent) else self.spec.urls

    def instances(self, session: aiohttp.ClientSession, count: int) -> list[tuple[Serve, str]]:
        """Return (instance, URL) of those that are there at once: one a URL, or ``count`` times its function."""
        if self._function is not None:
            return [(self._function, "")] * count
        return [(self.at(url, session), url) for url in self.urls]

    def at(self, url: str, session: aiohttp.ClientSession) -> Checked:
        """Return the instance at a URL."""
        spec = self.spec
        assert not isinstance(spec, CallableAgent)
        posts = Posts(session, url, timeout_s=self._timeout_s, key=self._key, health_path=spec.health)
        if isinstance(spec, HttpJson):
            return http_json(posts, spec, model_name=self._models.__getitem__)
        model = spec.model
        name = self._models.__getitem__ if model is None else (lambda number: model)
        return openai_http(posts, model_name=name, speaks=spec.speaks, path=spec.path)


def of_urls(urls: Sequence[str], health_path: str | None) -> OpenAIHttp | HttpJson:
    """Return how instances are reached of which only the URLs are known, all of one kind.

    One that ends in ``/chat/completions`` is spoken to by OpenAI's API; any other gets JSON of our own.

    >>> of_urls(["http://127.0.0.1:9000/v1/chat/completions"], None).urls
    ('http://127.0.0.1:9000/v1',)
    """
    plain = tuple(url.rstrip("/") for url in urls)
    if all(url.endswith(_CHAT) for url in plain):
        bases = tuple(url.removesuffix(_CHAT) for url in plain)
        return OpenAIHttp.model_validate(
            {"adapter": "openai_http", "urls": bases, "path": "", "speaks": ("chat",), "health": health_path}
        )
    return HttpJson.model_validate({"adapter": "http_json", "urls": tuple(urls), "health": health_path})


def _function(use: str) -> object:
    module, _, name = use.partition(":")
    try:
        found: object = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise SettingsError(f"live.agents: {use} cannot be found: {error}") from error
    return found
