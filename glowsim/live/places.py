"""The instances of a fleet: those that are there, those that are started on this machine, and what they report."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from urllib.parse import urljoin

import aiohttp

from glowsim.live.adapters import Reach
from glowsim.live.adapters.kubernetes import Deployment, api_client
from glowsim.live.adapters.load_reports import LoadReports, Metered
from glowsim.live.adapters.process import Workers
from glowsim.live.driver import Driver
from glowsim.live.settings import SettingsError
from glowsim.scenario.live import CallableAgent, Pods, Processes

__all__ = ["Places"]


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
    """

    def __init__(
        self, driver: Driver, session: aiohttp.ClientSession, stack: AsyncExitStack, folder: Path
    ) -> None:
        self._driver = driver
        self._session = session
        self._stack = stack
        self._folder = folder
        self._addresses: dict[int, Callable[[], Mapping[int, str]]] = {}

    async def put(self, agent: int, reach: Reach, *, region: int, count: int) -> None:
        """Have an agent's instances take part.

        Parameters
        ----------
        agent
            Its number.
        reach
            How it is reached.
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
            at = {
                self._driver.add(agent, instance, region=region): url
                for instance, url in reach.instances(self._session, count)
            }
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
        polling = asyncio.get_running_loop().create_task(reports.run())
        self._stack.callback(polling.cancel)
