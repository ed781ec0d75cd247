"""A task put to one variant over HTTP: whatever becomes of it is an outcome, and none is lost."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import aiohttp

from glowsim.core.types import Outcome, Usage
from glowsim.load.faces import ChatFace, Unreadable, refusal
from glowsim.load.sending import silent
from glowsim.pairs.problems import PairsError
from glowsim.pairs.tasks import Task

__all__ = ["Answer", "Asker", "Side", "asking", "side_of"]

_PATH: Final = "/chat/completions"
_LONGEST_ANSWER: Final = 1024 * 1024
_TRIES: Final = 4
"""Of a request that is told to come later: how fast the replay asks is not the variant's fault."""
_LONGEST_WAIT_S: Final = 60.0
_HOPELESS: Final = {
    401: "it wants a valid key: name the variable that holds it with --{side}-key-env",
    403: "it does not let this key in: name another with --{side}-key-env",
    404: "it does not know the model, or does not speak OpenAI's chat completions there",
    405: "it does not speak OpenAI's chat completions there",
}
"""Status that no other task would fare better than -> what to do."""
_face = ChatFace()


class Side(NamedTuple):
    """One of the two variants: where it is asked."""

    name: str
    """``baseline`` or ``variant``."""
    url: str
    model: str | None
    """None: the one that each task names."""


class Answer(NamedTuple):
    """What became of a task."""

    outcome: Outcome
    text: str = ""
    usage: Usage | None = None
    """None: the target did not say."""
    latency_s: float = 0.0
    said: str = ""
    """Of a failure."""


def side_of(name: str, given: str) -> Side:
    """Return a side by its option, ``URL[,MODEL]``.

    The URL is that of the server, or ends with the path that the server has for its API.

    Raises
    ------
    PairsError
        The URL is not plain http or https, or holds a key.

    >>> side_of("variant", "http://127.0.0.1:8000,gpt-x")
    Side(name='variant', url='http://127.0.0.1:8000/v1/chat/completions', model='gpt-x')
    >>> side_of("baseline", "https://api.example/openai/v1/").url
    'https://api.example/openai/v1/chat/completions'
    """
    url, _, model = given.partition(",")
    parts = urlsplit(url)
    try:
        port = parts.port
    except ValueError:
        port = 0
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise PairsError(f"--{name}: write http://HOST:PORT,MODEL or https://HOST/v1,MODEL")
    if parts.username is not None or parts.password is not None:
        raise PairsError(
            f"--{name}: leave the key out of the URL; name the variable that holds it: --{name}-key-env"
        )
    if parts.query or parts.fragment:
        raise PairsError(f"--{name}: leave out what follows ? or #")
    url = url.rstrip("/")
    if not url.endswith(_PATH):
        url += _PATH if parts.path.rstrip("/") else f"/v1{_PATH}"
    return Side(name, url, model or None)


class Asker:
    """Asks one side.

    Parameters
    ----------
    side
        Which.
    session
        Of its connections.
    timeout_s
        For a whole answer, above 0; beyond, the outcome is a timeout.
    """

    def __init__(self, side: Side, session: aiohttp.ClientSession, timeout_s: float) -> None:
        self.side = side
        self._session = session
        self._timeout_s = timeout_s

    async def ask(self, task: Task) -> Answer:
        """Return what became of a task.

        Raises
        ------
        PairsError
            The target answers that no task will be served: a key, a path, a model or its certificate is wrong.
        """
        loop = asyncio.get_running_loop()
        model = self.side.model or task.model
        body = json.dumps({"model": model, **task.body, "stream": False}).encode()
        for remaining in reversed(range(_TRIES)):
            begun = loop.time()
            try:
                async with asyncio.timeout(self._timeout_s):
                    answer, wait_s = await self._once(body)
            except TimeoutError:
                answer, wait_s = Answer(Outcome.TIMEOUT, said=f"no answer within {self._timeout_s:g} s"), None
            except aiohttp.ClientSSLError as error:
                raise PairsError(
                    f"--{self.side.name} {self.side.url}: no TLS with a certificate that this machine trusts: "
                    "write http:// where there is none, or have it trusted"
                ) from error
            except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError) as error:
                answer, wait_s = Answer(Outcome.UNREACHABLE, said=type(error).__name__), None
            except (aiohttp.ClientError, Unreadable) as error:
                answer, wait_s = Answer(Outcome.ERROR, said=str(error) or type(error).__name__), None
            if wait_s is None or not remaining:
                break
            await asyncio.sleep(wait_s)
        return answer._replace(latency_s=loop.time() - begun)

    async def _once(self, body: bytes) -> tuple[Answer, float | None]:
        """Return an answer, and after how many seconds to ask again, if so."""
        async with self._session.post(self.side.url, data=body, allow_redirects=False) as response:
            status = response.status
            if status in _HOPELESS:
                remedy = _HOPELESS[status].format(side=self.side.name)
                raise PairsError(f"--{self.side.name} {self.side.url} answers with status {status}: {remedy}")
            raw = await _bounded(response)
            if status >= 300:
                outcome, _ = refusal(status, raw)
                wait_s = _wait_s(response.headers) if status == 429 else None
                return Answer(outcome, said=f"status {status}"), wait_s
            usage = _face.answer(raw).usage
            return Answer(Outcome.OK, _text(json.loads(raw)), usage), None


@asynccontextmanager
async def asking(sides: Mapping[Side, str | None], timeout_s: float) -> AsyncIterator[dict[str, Asker]]:
    """Give who asks each side, by its name, while the block lasts.

    Parameters
    ----------
    sides
        Side -> its key, sent as a bearer token; None: none is.
    timeout_s
        For a whole answer.

    Raises
    ------
    PairsError
        Nobody takes connections at a side.
    """
    async with AsyncExitStack() as stack:
        askers = {}
        for side, key in sides.items():
            why = await silent(side.url)
            if why:
                raise PairsError(f"--{side.name} {side.url}: nobody takes connections there ({why})")
            headers = {"Content-Type": "application/json"}
            if key is not None:
                headers["Authorization"] = f"Bearer {key}"
            session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=None),
                cookie_jar=aiohttp.DummyCookieJar(), headers=headers,
            )  # fmt: skip
            askers[side.name] = Asker(side, await stack.enter_async_context(session), timeout_s)
        yield askers


async def _bounded(response: aiohttp.ClientResponse) -> bytes:
    read = bytearray()
    async for chunk in response.content.iter_any():
        read += chunk
        if len(read) > _LONGEST_ANSWER:
            raise Unreadable(f"the answer is longer than {_LONGEST_ANSWER} bytes")
    return bytes(read)


def _wait_s(headers: Mapping[str, str]) -> float:
    """Return how long a target that is asked too often wants to be left alone; where it does not say, a second."""
    text = headers.get("Retry-After", "").strip()
    return min(float(text), _LONGEST_WAIT_S) if text.isdecimal() else 1.0


def _text(said: dict[str, Any]) -> str:
    """Return the text of an answer that `ChatFace` has found readable."""
    content = said["choices"][0]["message"].get("content")
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, dict)]
        return "".join(part for part in parts if isinstance(part, str))
    return content if isinstance(content, str) else ""
