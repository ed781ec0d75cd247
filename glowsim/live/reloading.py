"""Another configuration while requests are served: checked whole, and taken on between two events or not at all."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import NamedTuple

from glowsim import build
from glowsim.core.errors import GlowsimError
from glowsim.live.driver import Driver
from glowsim.live.outbox import Outbox
from glowsim.live.validity import Validity
from glowsim.reload import Carried, Difference, ReloadError, carried, differences
from glowsim.scenario import Scenario, digest

__all__ = ["Compared", "Reloading", "idle_timeouts", "in_header"]

_log = logging.getLogger(__name__)


class Compared(NamedTuple):
    """What is in force, and how what is written differs from it."""

    digest: str
    differences: list[Difference]
    refused: str | None
    """Why what is written cannot be taken on as it is; None: it can."""


def in_header(scenario: Scenario) -> dict[str, object]:
    """Return what the journal's segments say of a configuration: all of it, so that they replay by themselves."""
    return build.header(scenario, 0) | {"on_error": "fall back", "configuration": scenario.dump()}


class Reloading:
    """Takes on what the scenario's file says now.

    Parameters
    ----------
    scenario
        What is in force.
    again
        Reads it once more.
    driver, validity, outbox
        Who serves, who asks for a certificate, and who writes the audit.
    renewed
        Is called with the scenario that came into force.
    allow_plugins
        Whether controllers may be code beside the scenario.
    """

    def __init__(
        self, scenario: Scenario, again: Callable[[], Scenario], driver: Driver, validity: Validity, outbox: Outbox,
        renewed: Callable[[Scenario], None], *, allow_plugins: bool,
    ) -> None:  # fmt: skip
        self.scenario = scenario
        self._again = again
        self._driver = driver
        self._validity = validity
        self._outbox = outbox
        self._renewed = renewed
        self._allow_plugins = allow_plugins
        self._one = asyncio.Lock()
        self._ordering: set[asyncio.Task[None]] = set()

    def order(self, who: str) -> None:
        """Have it reloaded meanwhile; what comes of it is logged and in the audit."""
        task = asyncio.ensure_future(self._ordered(who))
        self._ordering.add(task)
        task.add_done_callback(self._ordering.discard)

    async def _ordered(self, who: str) -> None:
        try:
            done = await self.reload(who)
        except ReloadError:
            return  # logged, where it was refused
        except GlowsimError as error:
            _log.error("the audit lacks that the configuration was taken on: %s", error)
            return
        _log.info("%d differences are in force", len(done.differences))

    async def compared(self) -> Compared:
        """Return how what is written differs from what is in force; nothing is changed."""
        async with self._one:
            found: list[Difference] = []
            refused = None
            try:
                after = await asyncio.to_thread(self._again)
                found = differences(self.scenario, after)
                self._taken_on(after, found)
            except GlowsimError as error:
                refused = str(error)
            return Compared(digest(self.scenario), found, refused)

    async def reload(self, who: str) -> Compared:
        """Take on what is written; it is in force, and in the audit, when this returns.

        Parameters
        ----------
        who
            Ordered it.

        Returns
        -------
        What is in force now, and how it differs from before.

        Raises
        ------
        ReloadError
            It cannot be read, built or certified, or does not fit what is at work; nothing was changed.
        StoreError
            It is in force, but not in the audit.
        """
        async with self._one:
            before = {"digest": digest(self.scenario)}
            try:
                after = await asyncio.to_thread(self._again)
                found = differences(self.scenario, after)
                if found:
                    plane, afresh = self._taken_on(after, found)
                    self._validity.renew(after)
                    self._driver.reload(plane, afresh, in_header(after), idle_timeouts(after))
                    self.scenario = after
                    self._renewed(after)
            except GlowsimError as error:
                _log.error("the configuration was not taken on, and nothing was changed: %s", error)
                await self._outbox.order(
                    who=who, what="configuration", before=before, after={}, outcome=f"refused: {error}"[:1000]
                )
                raise ReloadError(str(error)) from error
            for each in found:
                _log.info("configuration: %s", each)
            said = {"digest": digest(after), "differences": [str(each) for each in found]}
            await self._outbox.order(who=who, what="configuration", before=before, after=said)
            return Compared(digest(after), found, None)

    def _taken_on(self, after: Scenario, found: list[Difference]) -> Carried:
        """Return what would be at work."""
        restart = [str(each) for each in found if each.needs == "restart"]
        if restart:
            more = f" and {len(restart) - 3} more" if len(restart) > 3 else ""
            raise ReloadError(
                f"{'; '.join(restart[:3])}{more}: this comes into force when the daemon is started again, which goes "
                "on with the journal"
            )
        self._validity.certified(after)
        return carried(self.scenario, after, self._driver.plane, allow_plugins=self._allow_plugins)


def idle_timeouts(scenario: Scenario) -> dict[int, float]:
    """Return agent -> after which silence an attempt of its is given up."""
    agents = enumerate(scenario.agents().values())
    return {number: agent.idle_timeout_s for number, agent in agents if agent.idle_timeout_s is not None}
