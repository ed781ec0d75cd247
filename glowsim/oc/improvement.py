"""Our own rollout (``use: improvement_rollout``) over many campaigns at once.

An implementation of its own, from the rule's text: ``tests/oc/test_parity.py`` shows the same counts to the object that
runs in the daemon, and wants the same decisions at the same looks.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from math import ceil, log
from typing import Final

import numpy as np
from scipy.special import betaln, ndtri

from glowsim.core.errors import GlowsimError
from glowsim.oc.rules import BASELINE, CANARY, Bools, Course, Floats, Ints, Known, Status
from glowsim.oc.sticky import FewUnits, gains
from glowsim.oc.traffic import looks

__all__ = ["STRATEGIES", "Improvement", "sample_ratio_evidence"]

HARM: Final = np.array([1.25, 1.5, 2.0, 3.0, 5.0])
"""Risk ratios that are held against the tolerated one."""
_LOG_HARM: Final = np.log(HARM)[:, None]
_HOUR_S: Final = 3600.0
_PLANNED: Final = 0.9
"""Of the mixture over start times, the part that the hours of the planned schedule share."""
_SAMPLE_RATIO: Final = 1000.0
"""Concentration of the Dirichlet and threshold of the Bayes factor."""
STRATEGIES: Final = {
    "immediate": ((1.0,), ()),
    "gradual": ((0.1, 0.25, 0.5, 1.0), (7200.0, 7200.0, 7200.0)),
    "canary": ((0.05, 0.1, 0.25, 0.5, 1.0), (86_400.0, 7200.0, 7200.0, 7200.0)),
}
"""Strategy -> its weights, and the seconds of all but the last."""


@dataclass(frozen=True)
class Improvement:
    """The settings of ``improvement_rollout`` that decide; names and meaning are that controller's.

    Parameters
    ----------
    weights
        Shares of the new version, rising; the last is 1.
    holds_s
        Seconds of each but the last.
    guardrails
        What it looks at, each with ``alpha`` divided by their number.
    margin
        Difference in the share of bad outcomes that is no harm; asked for of every guardrail at the last gate.
    look_s, maturity_s
        Seconds between looks, and after which outcomes are taken in.
    alpha
        Bound on the probability of a false rollback.
    promote_alpha
        Of promoting a version that is worse by the margin, over all gates.
    risk_ratio
        Tolerated, new over old.
    gates
        How often the last gate may be asked.
    minimum
        Mature outcomes of the new version without which no stage ends.
    unit
        What is assigned: ``request``, or what sends several of them (``session``, ``user``, ``tenant``).
    correlation
        Of two outcomes of one unit, where that is not the request.
    name
        What the table calls it.

    Raises
    ------
    GlowsimError
        Weights and holds do not fit.
    """

    weights: tuple[float, ...] = STRATEGIES["canary"][0]
    holds_s: tuple[float, ...] = STRATEGIES["canary"][1]
    guardrails: tuple[str, ...] = ("errors",)
    margin: float = 0.01
    look_s: float = 60.0
    maturity_s: float = 120.0
    alpha: float | None = 0.01
    promote_alpha: float = 0.025
    risk_ratio: float = 1.0
    gates: int = 1
    minimum: int = 100
    unit: str = "request"
    correlation: float = 0.01
    name: str = "canary"

    def __post_init__(self) -> None:
        if self.weights[-1] != 1.0 or any(b <= a for a, b in pairwise((0.0, *self.weights))):
            raise GlowsimError(f"{self.name}: the weights {list(self.weights)} must rise, and end with 1")
        if len(self.holds_s) != len(self.weights) - 1:
            raise GlowsimError(
                f"{self.name}: {len(self.weights)} weights and {len(self.holds_s)} holds: give one hold for each "
                "weight but the last"
            )

    @property
    def schedule_s(self) -> float:
        """Seconds until the last gate, if nothing holds it up."""
        return float(np.sum([looks(hold_s, self.look_s) for hold_s in self.holds_s])) * self.look_s

    @cached_property
    def hour(self) -> int:
        """Looks from start to start of the mixture, and of a stratum of the last gate."""
        return max(1, round(_HOUR_S / self.look_s))

    def mass(self, start: int) -> float:
        """Return the weight of a start time in the mixture, fixed beforehand; all of them add up to at most 1.

        >>> round(sum(Improvement().mass(start) for start in range(30)), 12)
        0.9
        """
        hours = max(1, ceil(sum(self.holds_s) / _HOUR_S - 1e-9))
        if start < hours:
            return _PLANNED / hours
        late = start - hours + 1
        return (1.0 - _PLANNED) / (late * (late + 1))

    def start(self, campaigns: int) -> Course:
        """Return the rule at the beginning of so many campaigns."""
        return _Course(self, campaigns)


def sample_ratio_evidence(assigned: Ints, weight: Floats) -> Floats:
    """Return the logarithm of the Bayes factor against a split as it should be, shape (campaigns,).

    Parameters
    ----------
    assigned
        Units of one stage by arm, shape (2, campaigns).
    weight
        Share that the new version should have had, between 0 and 1, shape (campaigns,).

    Notes
    -----
    Source: Lindon & Malek, "Anytime-valid inference for multinomial count data", NeurIPS 2022.
    """
    base, new = assigned
    prior_new, prior_base = _SAMPLE_RATIO * weight, _SAMPLE_RATIO * (1.0 - weight)
    found: Floats = (
        betaln(prior_new + new, prior_base + base)
        - betaln(prior_new, prior_base)
        - new * np.log(weight)
        - base * np.log1p(-weight)
    )
    return found


class _Course(Course):
    def __init__(self, rule: Improvement, campaigns: int) -> None:
        super().__init__(campaigns, rule.weights[0])
        kinds = len(rule.guardrails)
        self._rule = rule
        self._lag = looks(rule.maturity_s, rule.look_s)
        self._holds = tuple(looks(hold_s, rule.look_s) for hold_s in rule.holds_s)
        self._enough = kinds / rule.alpha if rule.alpha else np.inf
        self._z = float(ndtri(1.0 - rule.promote_alpha / rule.gates))
        self._per_bad = [_per_bad(rule.risk_ratio, weight) for weight in rule.weights[:-1]]
        self._left = 1.0
        self.stage = np.zeros(campaigns, np.int64)
        """Place in the rule's weights."""
        self.begun = np.zeros(campaigns, np.int64)
        self.due = np.full(campaigns, self._holds[0] if self._holds else 0)
        self.then_stage, self.then_begun = np.zeros((2, self._lag + 1, campaigns), np.int64)
        """Of the buckets whose outcomes are still to come: bucket b at place b modulo their number."""
        self.matured = np.zeros(campaigns, np.int64)
        self.refused = np.zeros(campaigns, np.int64)
        self.single = np.zeros((kinds, len(HARM), campaigns))
        self.mixed = np.full((kinds, len(HARM), campaigns), -np.inf)
        self.few = (
            FewUnits(kinds, campaigns, rule.correlation, rule.risk_ratio) if rule.unit != "request" else None
        )
        self.stratum = np.zeros(campaigns, np.int64)
        self.requests = np.zeros((2, campaigns), np.int64)
        self.bad = np.zeros((kinds, 2, campaigns), np.int64)
        self.sums = np.zeros((4, kinds, campaigns))
        self.units = np.zeros((2, campaigns), np.int64)
        self.past = np.zeros(campaigns)
        self.alarm = np.zeros(campaigns, np.bool_)
        if len(rule.weights) == 1:
            self.status[:] = Status.PROMOTED

    def take(self, look: int, assigned: Ints, known: Known | None) -> None:
        place = (look - 1) % (self._lag + 1)
        self.then_stage[place], self.then_begun[place] = self.stage, self.begun
        running = self.status == Status.RUNNING
        if known is not None:
            harmed = self._learn(look - 1 - self._lag, known)
            self.status[harmed & running] = Status.ROLLED_BACK
            running &= ~harmed
        self._check_split(assigned)
        over = running & (look >= self.due) & (self.matured >= self._rule.minimum) & ~self.alarm
        if over.any():
            self._go_on(look, over)

    def _learn(self, bucket: int, known: Known) -> Bools:
        """Take a mature bucket in, and return where there is enough evidence of harm."""
        place = bucket % (self._lag + 1)
        stage, begun = self.then_stage[place], self.then_begun[place]
        if bucket % self._rule.hour == 0:
            mass = self._rule.mass(bucket // self._rule.hour)
            null = 0.0 if self.few is None else self.few.log_null(slice(None))[:, None]
            self.mixed = np.logaddexp(self.mixed, log(mass) + null)
            self._left -= mass
        self.matured += np.where(stage == self.stage, known.requests[CANARY], 0)
        self._count(stage, (bucket - begun) // self._rule.hour, known)
        if self.few is not None:
            return self._weigh_sticky(self.few, stage, known)
        alike = (stage == stage[0]).all()
        per_bad = self._per_bad[stage[0]][:, None] if alike else np.array(self._per_bad).T[:, stage]
        harmed = np.zeros(len(stage), np.bool_)
        for kind in range(len(self._rule.guardrails)):
            base, new = known.bad[kind]
            gained = new * _LOG_HARM + (new + base) * per_bad
            self.single[kind] += gained
            self.mixed[kind] += gained
            # without a bad outcome of the new version the evidence does not grow
            rows = np.flatnonzero(new)
            ratios = np.exp(np.minimum(self.single[kind][:, rows], 700.0))
            mixture = np.exp(np.minimum(self.mixed[kind][:, rows], 700.0))
            evidence = (ratios.mean(axis=0) + mixture.mean(axis=0) + self._left) / 2.0
            harmed[rows[evidence >= self._enough]] = True
        return harmed

    def _weigh_sticky(self, few: FewUnits, stage: Ints, known: Known) -> Bools:
        """Take in a bucket where units send several requests, and return where there is enough evidence of harm."""
        if self.effective is None:
            raise GlowsimError(
                f"{self._rule.name} assigns by {self._rule.unit}: say how many of them there are (--tenants)"
            )
        few.take(known, stage, self.stage, self.effective)
        gained = gains(known, HARM, self._rule.risk_ratio)
        self.single += gained
        self.mixed += gained
        harmed = np.zeros(len(stage), np.bool_)
        for kind in range(len(self._rule.guardrails)):
            ratios = np.exp(np.minimum(self.single[kind], 700.0)).mean(axis=0)
            mixture = np.exp(np.minimum(self.mixed[kind], 700.0)).mean(axis=0)
            # the null is at least a quarter: where even that is not enough, it is not worked out
            rows = np.flatnonzero(4.0 * (ratios + mixture) + self._left >= 2.0 * self._enough)
            if len(rows):
                over = np.log(ratios[rows] + mixture[rows]) - few.log_null(rows)[kind]
                evidence = (np.exp(np.minimum(over, 700.0)) + self._left) / 2.0
                harmed[rows[evidence >= self._enough]] = True
        return harmed

    def _count(self, stage: Ints, hour: Ints, known: Known) -> None:
        """Add a bucket to its stratum; one that is complete goes into the sums of the last gate."""
        stratum = stage * 1_000_000 + hour
        done = np.flatnonzero(stratum != self.stratum)
        if len(done):
            self.sums[..., done] += self._stratum_sums(done)
            self.requests[:, done], self.bad[..., done] = 0, 0
            self.stratum = stratum
        self.requests += known.requests
        self.bad += known.bad

    def _stratum_sums(self, rows: Ints) -> Floats:
        """Return the sums of the last gate over the stratum that is not complete, shape (4, guardrails, rows)."""
        sums = _strata(self.requests[:, rows], self.bad[..., rows], self._rule.margin)
        fewness = 0.0 if self.few is None else self.few.fewness[rows]
        return np.concatenate([sums, sums[1:2] * fewness])

    def _check_split(self, assigned: Ints) -> None:
        self.units += assigned
        base, new = self.units
        count = base + new
        off = new - count * self.weight
        # the evidence is at most this square: what is far from the threshold is not worked out
        bound = off * off / np.maximum(count * self.weight * (1.0 - self.weight), 1e-9)
        near = np.flatnonzero((bound + self.past >= log(_SAMPLE_RATIO)) & (self.weight < 1.0))
        if len(near):
            evidence = sample_ratio_evidence(self.units[:, near], self.weight[near])
            self.alarm[near] |= evidence + self.past[near] >= log(_SAMPLE_RATIO)

    def _go_on(self, look: int, over: Bools) -> None:
        """End a stage: the next one, or the last gate."""
        last = over & (self.stage == len(self._holds) - 1)
        if last.any():
            self._ask(look, np.flatnonzero(last))
        rows = np.flatnonzero(over & ~last)
        self.past[rows] += sample_ratio_evidence(self.units[:, rows], self.weight[rows])
        self.units[:, rows] = 0
        self.stage[rows] += 1
        self.begun[rows] = look
        self.due[rows] = look + np.array(self._holds)[self.stage[rows]]
        self.weight[rows] = np.array(self._rule.weights)[self.stage[rows]]
        self.matured[rows] = 0

    def _ask(self, look: int, rows: Ints) -> None:
        """Promote where the new version is shown to be no worse than the margins allow."""
        total = self.sums[..., rows] + self._stratum_sums(rows)
        good = np.ones(len(rows), np.bool_)
        for kind in range(len(self._rule.guardrails)):
            apart, informed, spread, fewness = total[:, kind]
            if self.few is not None:
                # units stay in their arm over many strata: their standard deviations add up
                spread = spread + self.few.unit_variance()[kind, rows] * fewness**2
            # d + z se < margin, times what is informed
            good &= apart + self._z * np.sqrt(spread) < self._rule.margin * informed
        self.status[rows[good]] = Status.PROMOTED
        self.weight[rows[good]] = 1.0
        refused = rows[~good]
        self.refused[refused] += 1
        self.due[refused] = look + self._holds[-1]
        self.status[refused[self.refused[refused] >= self._rule.gates]] = Status.HELD


def _per_bad(risk_ratio: float, weight: float) -> Floats:
    """Return what a bad outcome of either version adds to each logarithm, but for the new version's log r."""
    odds = risk_ratio * weight / (1.0 - weight)
    return np.log((1.0 + odds) / (1.0 + odds * HARM))


def _strata(requests: Ints, bad: Ints, margin: float) -> Floats:
    """Return what a stratum adds to the sums of the last gate, shape (3, guardrails, campaigns).

    The difference of risks of Mantel and Haenszel is the first sum over the second, and its standard error, if the
    true difference is the margin, the root of the third over the second. (Taken at the estimate instead, as Sato has
    it, it is too small just where the estimate is too low, and a version at the margin is promoted too often.)
    Sources: Miettinen & Nurminen, "Comparative analysis of two rates", Statistics in Medicine 4(2), 1985; Farrington &
    Manning, "Test statistics and sample size formulae for comparative binomial trials", ibid. 9(12), 1990.
    """
    n0, n1 = requests[BASELINE].astype(np.float64), requests[CANARY].astype(np.float64)
    x0, x1 = bad[:, BASELINE], bad[:, CANARY]
    count = np.maximum(n0 + n1, 1.0)
    apart = (x1 * n0 - x0 * n1) / count
    informed = np.broadcast_to(n0 * n1 / count, apart.shape)
    p0 = np.clip((x0 + x1 - margin * n1) / count, 0.0, 1.0 - margin)
    p1 = p0 + margin
    spread = n0 * n1 * (n0 * p1 * (1.0 - p1) + n1 * p0 * (1.0 - p0)) / count**2
    return np.stack([apart, informed, spread])
