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
from glowsim.live.adapters.load_reports import LoadReports, Metered
from glowsim.live.adapters.process import Workers
from glowsim.live.driver import Driver
from glowsim.live.settings import SettingsError
from glowsim.scenario.live import CallableAgent, HttpJson, OpenAIHttp

__all__ = ["Places"]


class Places:
    """Puts the instances of agents that are reached over HTTP, or are functions, to work with a driver.

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

    def put(self, agent: int, reach: Reach, *, region: int, count: int) -> None:
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
        """
        spec = reach.spec
        if isinstance(spec, CallableAgent) or spec.process is None:
            at = {
                self._driver.add(agent, instance, region=region): url
                for instance, url in reach.instances(self._session, count)
            }
            addresses: Callable[[], Mapping[int, str]] = lambda: at  # noqa: E731
        else:
            workers = self._workers(reach, spec)
            self._stack.push_async_callback(workers.close)
            self._driver.scalers[agent] = workers
            for _ in range(count):
                self._driver.start(agent, region=region)
            addresses = workers.addresses
        if not isinstance(spec, CallableAgent) and spec.metrics is not None:
            self._read(agent, spec.metrics, spec.report_every_s, addresses)

    def _workers(self, reach: Reach, spec: OpenAIHttp | HttpJson) -> Workers:
        process = spec.process
        assert process is not None
        try:
            return Workers(
                process.command,
                connect=partial(reach.at, session=self._session),
                lost=self._driver.lost,
                max_workers=process.limit,
                startup_timeout_s=process.ready_within_s,
                grace_s=process.stop_within_s,
                environment=process.environment,
                directory=None if process.directory is None else self._folder / process.directory,
            )
        except ValueError as error:
            raise SettingsError(f"live.agents: process: {error}") from error

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
