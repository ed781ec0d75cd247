"""The instances of a fleet: those at fixed URLs, those that are started here or as pods, and what they report.

An instance at a fixed URL takes part once it has said that it is well, as one that is started does: a server that
is still loading its model, or down when the daemon comes up, gets no work before, and is asked until it answers.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from contextlib import AsyncExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import aiohttp

from glowsim.live.adapters import Reach
from glowsim.live.adapters.kubernetes import Deployment, api_client
from glowsim.live.adapters.load_reports import LoadReports, Metered
from glowsim.live.adapters.process import Workers
from glowsim.live.calls import Checked
from glowsim.live.driver import Driver
from glowsim.live.settings import SettingsError
from glowsim.scenario.live import CallableAgent, Pods, Processes

__all__ = ["Places"]

_log = logging.getLogger(__name__)
_ASK_EVERY_S = 1.0
"""Between two questions to an instance that is not there yet."""


class Places:
    """Puts the instances of agents to work with a driver: those behind HTTP, and functions.

    Parameters
    ----------
    driver
        Is told of them.
    session
        For calls and polls.
    stack
        Ends, when it is closed, whatever was begun here.
    folder
        What relative directories of workers start from.
    probe_timeout_s
        Seconds, above 0, within which an instance at a fixed URL must have said that it is well.
    """

    def __init__(
        self, driver: Driver, session: aiohttp.ClientSession, stack: AsyncExitStack, folder: Path, *,
        probe_timeout_s: float,
    ) -> None:  # fmt: skip
        self._driver = driver
        self._session = session
        self._stack = stack
        self._folder = folder
        self._probe_timeout_s = probe_timeout_s
        self._asked: list[asyncio.Event] = []
        """One for each instance at a fixed URL: set when it has answered, or failed to, for the first time."""
        self._addresses: dict[int, Callable[[], Mapping[int, str]]] = {}

    async def put(self, agent: int, reach: Reach, *, name: str, region: int, count: int) -> None:
        """Have an agent's instances take part.

        Parameters
        ----------
        agent
            Its number.
        reach
            How it is reached.
        name
            What the log calls it.
        region
            The number of its region.
        count
            Instances to begin with, where they are not at fixed URLs.

        Raises
        ------
        SettingsError
            Its workers cannot be run so.
        InstanceError
            Its deployment is not there, or may not be read.
        """
        spec = reach.spec
        scaler: Workers | Deployment | None = None
        if not isinstance(spec, CallableAgent) and spec.process is not None:
            scaler = self._workers(reach, spec.process)
        elif not isinstance(spec, CallableAgent) and spec.kubernetes is not None:
            scaler = await self._deployment(reach, spec.kubernetes)
            count = await scaler.open() or count
        if scaler is None:
            at: dict[int, str] = {}
            for instance, url in reach.instances(self._session, count):
                if isinstance(instance, Checked):
                    number = self._driver.expect(agent, region=region)
                    self._begin(self._until_there(name, number, instance, url, at))
                else:
                    self._driver.add(agent, instance, region=region)
            addresses: Callable[[], Mapping[int, str]] = lambda: at  # noqa: E731
        else:
            self._stack.push_async_callback(scaler.close)
            self._driver.scalers[agent] = scaler
            for _ in range(count):
                self._driver.start(agent, region=region)
            addresses = scaler.addresses
        self._addresses[agent] = addresses
        if not isinstance(spec, CallableAgent) and spec.metrics is not None:
            self._read(agent, spec.metrics, spec.report_every_s, addresses)

    async def all_asked(self, within_s: float) -> None:
        """Return when every instance at a fixed URL has been asked once whether it is well, or the time is over."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                for each in self._asked:
                    await each.wait()

    async def _until_there(
        self, name: str, number: int, instance: Checked, url: str, at: dict[int, str]
    ) -> None:
        """Ask an instance at a fixed URL again and again whether it is well, and let it take part when it is."""
        asked = asyncio.Event()
        self._asked.append(asked)
        place = urlsplit(url)
        where = f"agent {name}: instance {number} at {place.hostname}:{place.port or place.scheme}"
        since_s = self._driver.now_s()
        while (trouble := await self._trouble(instance)) is not None:
            if not asked.is_set():
                _log.warning(
                    "%s is not there (%s): it gets no work until it is; it is asked every %g s",
                    where, trouble, _ASK_EVERY_S,
                )  # fmt: skip
                asked.set()
            await asyncio.sleep(_ASK_EVERY_S)
        at[number] = url
        self._driver.ready(number, instance)
        if asked.is_set():
            _log.warning("%s is there, after %.0f s", where, self._driver.now_s() - since_s)
        asked.set()

    async def _trouble(self, instance: Checked) -> str | None:
        """Return why an instance is not well; None if it is."""
        try:
            async with asyncio.timeout(self._probe_timeout_s):
                return None if await instance.healthy() else "its health page says that it is not well"
        except TimeoutError:
            return f"it said nothing within {self._probe_timeout_s:g} s"
        except (OSError, aiohttp.ClientError) as error:
            return str(error) or type(error).__name__

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        """Have something done until the stack is closed."""
        self._stack.callback(asyncio.get_running_loop().create_task(work).cancel)

    def url_of(self, agent: int, instance: int) -> str:
        """Return the base URL of an agent's instance; empty where it has none, or is not there."""
        addresses = self._addresses.get(agent)
        return "" if addresses is None else addresses().get(instance, "")

    def _workers(self, reach: Reach, spec: Processes) -> Workers:
        try:
            return Workers(
                spec.command,
                connect=partial(reach.at, session=self._session),
                lost=self._driver.lost,
                max_workers=spec.limit,
                startup_timeout_s=spec.ready_within_s,
                grace_s=spec.stop_within_s,
                environment=spec.environment,
                directory=None if spec.directory is None else self._folder / spec.directory,
            )
        except ValueError as error:
            raise SettingsError(f"live.agents: process: {error}") from error

    async def _deployment(self, reach: Reach, spec: Pods) -> Deployment:
        api = await api_client()
        self._stack.push_async_callback(api.close)
        return Deployment(
            api,
            namespace=spec.namespace,
            name=spec.deployment,
            port=spec.port,
            connect=partial(reach.at, session=self._session),
            lost=self._driver.lost,
            max_instances=spec.limit,
            startup_timeout_s=spec.ready_within_s,
            stop_timeout_s=spec.stop_within_s,
        )

    def _read(
        self, agent: int, page: str, every_s: float, addresses: Callable[[], Mapping[int, str]]
    ) -> None:
        """Poll the load of an agent's instances from now on."""

        def metered() -> dict[int, Metered]:
            return {number: Metered(agent, urljoin(url + "/", page)) for number, url in addresses().items()}

        reports = LoadReports(
            self._session,
            instances=metered,
            tell=self._driver.tell,
            now_s=self._driver.now_s,
            report_every_s=every_s,
        )
        self._begin(reports.run())
