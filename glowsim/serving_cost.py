"""What the model servers cost, and who for: a replica's hours, shared by the tokens that it read and wrote."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from glowsim.presets.serving import serving

if TYPE_CHECKING:
    from glowsim.results import Table, Tables
    from glowsim.scenario import Scenario

__all__ = ["of_attempts", "server_table"]

Floats = npt.NDArray[np.float64]


def server_table(scenario: Scenario, end_s: float) -> Table:
    """Return one row for each model and the server that serves it: models of one server share its price.

    The columns are the numbers of the server and the model, the server's price and when its time ends.
    """
    servers = list(scenario.servers.items())
    numbers = {name: i for i, (name, _) in enumerate(servers)}
    rows = [
        (numbers[model.server], i, _usd_per_hour(servers[numbers[model.server]][1]), end_s)
        for i, model in enumerate(scenario.models.values())
        if model.server is not None
    ]
    kinds = (np.int32, np.uint16, np.float64, np.float64)
    names = ("server", "model", "usd_per_hour", "until_s")
    return {
        name: np.array([row[at] for row in rows], dtype=kind)
        for at, (name, kind) in enumerate(zip(names, kinds, strict=True))
    }


def _usd_per_hour(server: Any) -> float:
    """Return the price of all replicas together; a hosted API has none but its tokens'."""
    if server.engine == "hosted":
        return 0.0
    usd_per_hour = server.replica_usd_per_hour
    if usd_per_hour is None:
        usd_per_hour = 0.0 if server.preset is None else serving(server.preset).hour_usd
    return float(server.replicas * usd_per_hour)


def of_attempts(
    tables: Tables, counted: npt.NDArray[np.bool_], warmup_s: float
) -> tuple[Floats, dict[int, float]]:
    """Return each attempt's share of its server's cost, in US dollars, and model -> what nobody used.

    A server's cost goes to the counted attempts by the tokens that it read (not those it had cached) and
    wrote for them. Without any, it is nobody's, and listed under the first model that it serves.

    Parameters
    ----------
    tables
        Of one replication.
    counted
        Whether each attempt counts: those of requests that arrived after the warm-up.
    warmup_s
        The servers' time until then is left out.
    """
    attempts, servers = tables.attempts, tables.servers
    shares = np.zeros(len(attempts["model"]))
    unused: dict[int, float] = {}
    work = np.maximum(attempts["tokens_in"] - attempts["tokens_cached"] + attempts["tokens_out"], 0)
    for server in np.unique(servers["server"]).tolist():
        mine = servers["server"] == server
        hours = max(float(servers["until_s"][mine][0]) - warmup_s, 0.0) / 3600.0
        usd = hours * float(servers["usd_per_hour"][mine][0])
        if not usd:
            continue
        on = counted & np.isin(attempts["model"], servers["model"][mine])
        total = float(work[on].sum())
        if total:
            shares[on] = usd * work[on] / total
        else:
            unused[int(servers["model"][mine][0])] = usd
    return shares, unused
