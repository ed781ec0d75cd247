"""The public keys of a token issuer, fetched from its URL (JWKS, RFC 7517) and fetched again as they age.

What comes from there decides who may call, and comes from elsewhere: it is bounded in size, time and number, fetched
over https or from this machine only, and no redirect is followed. When it cannot be had, the keys of the last time
go on: an issuer that is down for an hour must not shut its users out.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from math import inf
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp

from glowsim.core.errors import GlowsimError

__all__ = ["KeySet", "KeySetError", "keys_in"]

_log = logging.getLogger(__name__)
_LONGEST: Final = 256 * 1024
_MOST_KEYS: Final = 100
_WITHIN_S: Final = 5.0
_UNSAID_S: Final = 600.0
"""How long keys are good where the issuer does not say."""
_SOONEST_S, _LATEST_S = 60.0, 86_400.0
"""Within which its ``max-age`` is heeded."""
_RETRY_S: Final = 10.0
_UNKNOWN_S: Final = 60.0
"""Between two fetches for the sake of tokens that name a key that is not there."""
_MAX_AGE: Final = re.compile(r'(?:^|[,\s])max-age="?([0-9]{1,10})"?(?=$|[,\s])', re.IGNORECASE)
_KINDS: Final = {"RS256": ("RSA", None), "ES256": ("EC", "P-256"), "EdDSA": ("OKP", None)}
"""Algorithm -> type and curve of its keys; None: any."""


class KeySetError(GlowsimError):
    """Something is no set of keys for an algorithm."""


def keys_in(text: str | bytes, algorithm: str) -> dict[str, Any]:
    """Return the public keys of a JSON key set that an algorithm can use, by their name (``kid``).

    Keys without a name, for encryption, of another type or curve, or malformed are passed over: issuers publish them
    side by side, and one that nobody can read must not take the others with it.

    Raises
    ------
    KeySetError
        It is no key set, has more than 100 keys, or none that can be used.
    """
    import jwt

    try:
        said = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise KeySetError(f"it is not JSON: {str(error)[:200]}") from error
    listed = said.get("keys") if isinstance(said, dict) else None
    if not isinstance(listed, list):
        raise KeySetError("it is no JSON key set: it has no list 'keys'")
    if len(listed) > _MOST_KEYS:
        raise KeySetError(f"it has {len(listed)} keys, more than {_MOST_KEYS}")
    kind, curve = _KINDS[algorithm]
    found = {}
    for each in listed:
        match each:
            case {"kid": str(name), "kty": str(kty)} if name and kty == kind and each.get("use") != "enc":
                if curve is None or each.get("crv") == curve:
                    with suppress(jwt.PyJWTError, ValueError, TypeError):
                        found[name] = jwt.PyJWK(each, algorithm).key
    if not found:
        raise KeySetError(f"it has no usable key with a 'kid' for {algorithm}")
    return found


class KeySet:
    """Keeps the keys of an issuer fresh.

    Parameters
    ----------
    url
        Where they are.
    algorithm
        That tokens are signed by.
    session
        For the fetches.
    changed
        Is given the keys, by name, whenever they have been fetched.
    clock
        Seconds that never run back.

    Notes
    -----
    They are fetched again when their ``Cache-Control: max-age`` is over (1 minute to 1 day; 10 minutes where it is not
    said; RFC 9111), 10 s after a fetch that failed, and once a minute at most for a token that names an unknown key.
    """

    def __init__(
        self, url: str, algorithm: str, session: aiohttp.ClientSession,
        changed: Callable[[Mapping[str, Any]], None], *, clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        self._url = url
        self._algorithm = algorithm
        self._session = session
        self._changed = changed
        self._clock = clock
        where = urlsplit(url)
        self._place = f"{where.hostname}{where.path}"
        self._fetching: asyncio.Task[None] | None = None
        self._running: asyncio.Task[None] | None = None
        self._unknown_s = -inf
        """When it was last fetched for the sake of an unknown key."""
        self._due_s = clock()
        self._failing = False
        self.fetches = {"ok": 0, "failed": 0}
        """How fetches ended."""
        self.keys = 0
        """How many there are."""

    async def refresh(self) -> None:
        """Fetch the keys, or wait for the fetch that is under way; if it fails, those that are there go on."""
        if self._fetching is None:
            self._fetching = asyncio.get_running_loop().create_task(self._refresh())
        await asyncio.shield(self._fetching)

    def may_look(self) -> bool:
        """Return whether an unknown key is a reason to fetch, or to wait for the fetch that is under way."""
        return self._fetching is not None or self._clock() - self._unknown_s >= _UNKNOWN_S

    async def look(self) -> None:
        """Fetch the keys for the sake of an unknown one, unless that was done within the last minute."""
        if self.may_look():
            if self._fetching is None:
                self._unknown_s = self._clock()
            await self.refresh()

    async def open(self) -> None:
        """Fetch the keys, and from now on again and again as they age."""
        await self.refresh()
        self._running = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """Fetch no more."""
        left = [task for task in (self._running, self._fetching) if task is not None]
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(max(self._due_s - self._clock(), 0.0))
            if self._clock() >= self._due_s:
                await self.refresh()

    def metrics(self) -> str:
        """Return what became of the fetches as Prometheus' text."""
        lines = ["# TYPE glowsim_jwks_fetches_total counter"]
        lines += [f'glowsim_jwks_fetches_total{{result="{name}"}} {n}' for name, n in self.fetches.items()]
        return "\n".join([*lines, "# TYPE glowsim_jwks_keys gauge", f"glowsim_jwks_keys {self.keys}", ""])

    async def _refresh(self) -> None:
        try:
            lasts_s, keys = await self._fetch()
        except (KeySetError, aiohttp.ClientError, OSError) as error:  # a TimeoutError is an OSError
            self.fetches["failed"] += 1
            lasts_s = _RETRY_S
            if not self._failing:
                goes_on = (
                    f"its last {self.keys} go on" if self.keys else "no token can be believed until then"
                )
                why = str(error) or type(error).__name__
                _log.warning("the keys of %s cannot be fetched: %s; %s", self._place, why[:500], goes_on)
            self._failing = True
        else:
            self.fetches["ok"] += 1
            if self._failing:
                _log.warning("the keys of %s could be fetched again", self._place)
            self._failing, self.keys = False, len(keys)
            self._changed(keys)
        finally:
            self._fetching = None
        self._due_s = self._clock() + lasts_s

    async def _fetch(self) -> tuple[float, dict[str, Any]]:
        """Return how long the keys are good, and the keys."""
        limits = aiohttp.ClientTimeout(total=_WITHIN_S)
        async with self._session.get(
            self._url, timeout=limits, allow_redirects=False, headers={"Accept": "application/json"}
        ) as response:
            if response.status != 200:
                raise KeySetError(f"it answered with status {response.status}")
            read = bytearray()
            async for chunk in response.content.iter_any():
                read += chunk
                if len(read) > _LONGEST:
                    raise KeySetError(f"it is longer than {_LONGEST} bytes")
            stated = _MAX_AGE.search(response.headers.get("Cache-Control", ""))
        lasts_s = _UNSAID_S if stated is None else min(max(float(stated[1]), _SOONEST_S), _LATEST_S)
        return lasts_s, keys_in(bytes(read), self._algorithm)
