"""Who calls: by a key of the environment, or by a signed token (JWT) that binds user and tenant."""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any

from glowsim.live.key_set import KeySet, KeySetError, keys_in
from glowsim.live.settings import Caller, Settings, SettingsError
from glowsim.live.web import Refusal
from glowsim.scenario.live import Tokens

__all__ = ["Identity", "TokenReader", "UnknownKey"]

_REMEMBERED = 10_000
_LOCAL = Caller("local", "local")


class UnknownKey(Refusal):
    """A token names a key that its issuer may have published meanwhile: after a fetch it may be known."""


class Identity:
    """Says who calls.

    Keys are looked up by a keyed hash, so the time that takes says nothing about them. Without keys and tokens
    everybody is the same local caller; settings allow that on loopback only.

    Parameters
    ----------
    settings
        With the keys.
    tokens
        Reads signed tokens; None: there are none.
    """

    def __init__(self, settings: Settings, tokens: TokenReader | None = None) -> None:
        self._salt = secrets.token_bytes(32)
        self._callers = {
            self._digest(key.get_secret_value()): caller for caller, key in settings.keys.items()
        }
        self._tokens = tokens
        self.key_set: KeySet | None = None
        """Keeps the keys of signed tokens fresh, where they come from a URL."""
        self.open = not self._callers and tokens is None
        """Whether everybody may call."""

    def _digest(self, secret: str) -> bytes:
        return blake2b(secret.encode("utf-8", "surrogateescape"), key=self._salt, digest_size=32).digest()

    def caller(self, headers: Mapping[bytes, bytes]) -> Caller:
        """Return who sent these headers.

        Raises
        ------
        Refusal
            401: there is no valid key or token.
        UnknownKey
            401 too: its token may be valid after `look_again`.
        """
        if self.open:
            return _LOCAL
        scheme, _, given = headers.get(b"authorization", b"").partition(b" ")
        kind = Refusal
        secret = given.strip() if scheme.lower() == b"bearer" else headers.get(b"x-api-key", b"")
        if secret:
            text = secret.decode("latin-1")
            found = self._callers.get(self._digest(text))
            if found is None and self._tokens is not None:
                found = self._tokens.caller(text)
            if found is not None:
                return found
            if self._tokens is not None and self.key_set is not None and self.key_set.may_look():
                kind = UnknownKey if self._tokens.names_unknown_key(text) else Refusal
        raise kind(
            401, "send a valid key as 'Authorization: Bearer KEY'", headers={"WWW-Authenticate": "Bearer"}
        )

    async def look_again(self, headers: Mapping[bytes, bytes]) -> Caller:
        """Return who sent these headers, after a look for the key that their token names; raises as `caller`."""
        if self.key_set is not None:
            await self.key_set.look()
        return self.caller(headers)


class TokenReader:
    """Verifies signed tokens: signature, issuer, audience, expiry; and takes user and tenant from their claims.

    Parameters
    ----------
    spec
        What the scenario's ``live.tokens`` says.
    environment
        Where the secret of a shared-key algorithm is.
    folder
        What relative paths start from.

    Raises
    ------
    SettingsError
        The key is missing or unreadable.

    Notes
    -----
    A verified token is remembered until it expires, so its signature costs once. RFC 7519; RFC 8725 for what is
    checked: one stated algorithm, never the one that a token asks for.
    """

    def __init__(self, spec: Tokens, environment: Mapping[str, str], folder: Path) -> None:
        self._spec = spec
        self._keys = _keys(spec, environment, folder)
        self._seen: OrderedDict[str, tuple[float, Caller]] = OrderedDict()

    def take(self, keys: Mapping[str, Any]) -> None:
        """Believe these keys, by name, and no others: what was verified with others is verified again."""
        self._keys = dict(keys)
        self._seen.clear()

    def names_unknown_key(self, token: str) -> bool:
        """Return whether something is a token that names a key that is not there."""
        import jwt

        try:
            name = jwt.get_unverified_header(token).get("kid")
        except (jwt.PyJWTError, RecursionError):
            return False
        return isinstance(name, str) and name not in self._keys

    def caller(self, token: str) -> Caller | None:
        """Return whom a token binds, or None where it is not valid."""
        seen = self._seen.get(token)
        now_s = time.time()
        if seen is not None:
            if now_s < seen[0]:
                return seen[1]
            del self._seen[token]
        claims = self._verified(token)
        if claims is None:
            return None
        user, tenant = claims.get(self._spec.user_claim), claims.get(self._spec.tenant_claim)
        if not isinstance(user, str) or not isinstance(tenant, str) or not user or not tenant:
            return None
        caller = Caller(user, tenant)
        self._seen[token] = float(claims["exp"]), caller
        if len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)
        return caller

    def _verified(self, token: str) -> dict[str, Any] | None:
        import jwt

        spec = self._spec
        try:
            key = self._keys.get(str(jwt.get_unverified_header(token).get("kid")), self._keys.get(""))
            if key is None:
                return None
            claims: dict[str, Any] = jwt.decode(
                token, key, algorithms=[spec.algorithm], audience=spec.audience, issuer=spec.issuer,
                options={"require": ["exp", "iss", "aud", spec.user_claim, spec.tenant_claim]},
            )  # fmt: skip
            float(claims["exp"])  # a whole number may be too large for that
        except (jwt.PyJWTError, OverflowError, RecursionError):
            return None
        return claims


def _keys(spec: Tokens, environment: Mapping[str, str], folder: Path) -> dict[str, Any]:
    """Return the keys by their name; ``""``: for tokens that name none, or another."""
    if spec.secret_env is not None:
        secret = environment.get(spec.secret_env, "")
        if len(secret) < 32:
            raise SettingsError(f"live.tokens: {spec.secret_env} must hold a secret of 32 characters or more")
        return {"": secret}
    if spec.keys_file is None:
        return {}  # they come from a URL
    path = folder / spec.keys_file
    try:
        text = path.read_text()
    except OSError as error:
        raise SettingsError(f"live.tokens: {spec.keys_file} cannot be read: {error.strerror}") from error
    try:
        if not text.lstrip().startswith("{"):
            return {"": text}
        return keys_in(text, spec.algorithm)
    except KeySetError as error:
        raise SettingsError(f"live.tokens: {spec.keys_file}: {error}") from error
