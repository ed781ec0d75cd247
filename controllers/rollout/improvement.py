"""A rollout in stages, with guardrails and a last gate."""

from __future__ import annotations

from bisect import bisect_right
from itertools import pairwise
from math import ceil, exp, fsum, inf, log
from operator import itemgetter
from statistics import NormalDist
from typing import Annotated, Any, Final, Literal

from controllers.rollout.gate import NOTHING, Terms, stratum, together, upper_bound
from controllers.rollout.sample_ratio import ALARM, log_bayes_factor
from controllers.rollout.units import Units
from glowsim.core.evidence import HarmEvidence, spread_of
from glowsim.core.parameters import Bound, Count, Fraction, Positive, PositiveSeconds, Seconds
from glowsim.core.reasons import GUARDRAILS
from glowsim.core.snapshot import Stateful
from glowsim.core.streams import key_of, mix
from glowsim.core.types import Advance, ChangeKind, Code, Constraint, Observed, Reason, Request

__all__ = ["ImprovementRollout"]

_QUALITY, _COMPLAINTS = 3, 4
_HOUR_S: Final = 3600.0
_SCHEDULES: Final[dict[str, tuple[tuple[float, ...], tuple[float, ...]]]] = {
    "immediate": ((), ()),
    "gradual": ((0.10, 0.25, 0.5), (7_200.0,) * 3),
    "canary": ((0.05, 0.10, 0.25, 0.5), (86_400.0, *(7_200.0,) * 3)),
}
_LABELLED: Final = 2
"""Where in a bucket's counts, by arm, the requests stand whose quality was labelled; at 0 those assigned."""
_BAD: Final = 4
"""Where the bad outcomes stand, by guardrail and arm."""
_STAGE: Final = _BAD + 2 * len(GUARDRAILS)
"""Where the stage stands; what follows it is no count."""
_MOST_LABELLED: Final = 100_000
"""Labels of one look that are told apart; later ones are dropped, whatever their arm, and counted as late."""
_MOST_BUCKETS: Final = 100_000
"""Looks that may wait for their outcomes."""
_LARGEST: Final = 690.0
"""Natural logarithm of the largest evidence that is told."""

Look = Annotated[float, Bound(1.0)]
AnyNumber = Annotated[float, Bound()]


class ImprovementRollout(Stateful):
    """Decides which share of the traffic gets an improvement, in stages, and takes it back on evidence of harm.

    A unit gets the improvement (the canary) if the hash of (unit, salt) is below the weight, so it stays with its
    variant, and raising the weight only adds units. A request that belongs to no session, user or tenant is a unit
    by itself. Stage 0 is all baseline; stage 1 begins with the first request; the last stage has weight 1.

    Time is cut into looks. Requests are counted by the look in which they were assigned, so every count has one
    weight. A look's counts are taken in ``maturity_s`` after its end, in both arms alike; what is told later of its
    requests is dropped and counted (`late`). Everything is decided at looks:

    1. **Rolled back**, for good, when the evidence of harm (`HarmEvidence`) of one of K guardrails reaches
       K / ``alpha``. An improvement that does no harm is ever rolled back with probability at most ``alpha``,
       however often one looks.
    2. **On to the next stage** after the stage's time, if ``minimum`` outcomes of the canary are mature and the units
       were split by the weight (a sample ratio test at 0.001). Otherwise it is held, and says why once.
    3. **Promoted** at the last gate only, if every guardrail's share of bad outcomes is shown to be at most
       ``margin`` above the baseline's (Mantel-Haenszel over hours). Never by silence: what stays unshown after
       ``gates`` asks is held until an operator promotes it or rolls it back.

    Strategies: ``immediate`` gives everybody the improvement at once, and no guardrail can act; ``gradual`` 10, 25,
    50 % for 2 h each; ``canary`` 5 % for 24 h before that; ``stages`` takes ``weights`` and ``holds``.

    Where the unit is not the request, the arms differ by chance, the more the fewer units there are. The evidence
    then has to beat that chance, as large as ``correlation`` makes it, and the last gate's interval grows.

    The world must keep one outcome a request (after its retries), and ask for quality and complaints alike in both
    arms. A request that has not ended when its look matures counts as one that ended well: give ``maturity_s`` at
    least the timeout.

    Parameters
    ----------
    salt
        Name of the rollout: rollouts with different salts draw different units.
    strategy
        The schedule.
    weights
        For ``stages``: shares of the units, rising, above 0 and below 1; all of them follow by itself.
    holds_s
        For ``stages``: seconds of each stage, above 0; one for all, or as many as ``weights``.
    unit
        What is assigned.
    look_s
        Seconds between looks, at least 1.
    maturity_s
        Seconds after which outcomes are taken as known; at least ``latency_above_s``.
    alpha
        Bound on the probability of a false rollback, above 0 and below 1.
    risk_ratio
        The canary's risk over the baseline's that is tolerated, above 0.
    errors
        Guards requests that did not end well.
    latency_above_s
        Guards requests that took longer than this, in seconds; none: not guarded.
    cost_above_usd
        Guards requests that cost more than this, in US dollars; none: not guarded.
    quality_metric, quality_below
        Guards labels of this metric that are below this; empty and none: not guarded.
    complaints
        Guards labels of the metric ``complaint`` above 0.
    margin
        How many more bad outcomes a request are acceptable, above 0 and up to 0.5: 0.01 is one point.
    promote_alpha
        Bound on the probability to promote what is worse by the margin, above 0 and below 0.5.
    gates
        How often the last gate may be asked, a hold apart; ``promote_alpha`` is divided by it.
    minimum
        Mature canary outcomes without which no stage ends.
    correlation
        Intra-class correlation of bad outcomes within a unit, where the unit is not the request.

    Raises
    ------
    ValueError
        The schedule does not rise, or parameters contradict each other.

    Notes
    -----
    Sources: `glowsim.core.evidence`, `controllers.rollout.gate`, `controllers.rollout.sample_ratio`.

    >>> one = ImprovementRollout(salt="v2", strategy="stages", weights=(0.5,), holds_s=(60,), minimum=1)
    >>> [one.assign(0.0, Request(number, 0, 900, 100)) for number in range(1, 9)]
    [0, 1, 1, 0, 1, 1, 0, 0]
    >>> held = one.wake(one.wake_s())  # the outcomes will be mature in two minutes
    >>> held.stage, held.reason.code.name, one.wake_s()
    (1, 'TOO_FEW', 180.0)
    >>> one.wake(180.0).reason.code.name  # eight requests cannot show that it is no worse
    'INCONCLUSIVE'
    """

    state = (
        "_stage", "_first", "_began", "_turns", "_ends", "_taken_at", "_outcomes", "_asked", "_paused", "_said",
        "_split", "_split_log", "_alarmed", "_buckets", "_now", "_labelled", "_started", "_stratum", "_in_stratum",
        "_fewness", "_terms", "_totals", "late",
    )  # fmt: skip

    def __init__(
        self,
        *,
        salt: str,
        strategy: Literal["immediate", "gradual", "canary", "stages"] = "canary",
        weights: tuple[Fraction, ...] = (),
        holds_s: tuple[PositiveSeconds, ...] = (),
        unit: Literal["request", "session", "user", "tenant"] = "request",
        look_s: Look = 60.0,
        maturity_s: Seconds = 120.0,
        alpha: Fraction = 0.01,
        risk_ratio: Positive = 1.0,
        errors: bool = True,
        latency_above_s: PositiveSeconds | None = None,
        cost_above_usd: Positive | None = None,
        quality_metric: str = "",
        quality_below: AnyNumber | None = None,
        complaints: bool = False,
        margin: Fraction = 0.01,
        promote_alpha: Fraction = 0.025,
        gates: Count = 1,
        minimum: Count = 100,
        correlation: Fraction = 0.01,
    ) -> None:
        shares, holds = _schedule(strategy, weights, holds_s)
        if not 0.0 < alpha < 1.0:
            raise ValueError(f"alpha: give more than 0 and less than 1, such as 0.01, not {alpha}")
        if not 0.0 < promote_alpha < 0.5:
            raise ValueError(
                f"promote_alpha: give more than 0 and less than 0.5, such as 0.025, not {promote_alpha}"
            )
        if not 0.0 < margin <= 0.5:
            raise ValueError(
                f"margin: give more than 0 and at most 0.5, such as 0.01, not {margin}; that nothing is worse at all "
                "cannot be shown"
            )
        if bool(quality_metric) != (quality_below is not None):
            raise ValueError("quality_metric and quality_below go together: name both or neither")
        if maturity_s / look_s > _MOST_BUCKETS:
            raise ValueError(f"maturity_s: at most {_MOST_BUCKETS:,} looks; take a longer look_s")
        if latency_above_s is not None and latency_above_s > maturity_s:
            raise ValueError(
                f"maturity_s: {maturity_s:g} is before latency_above_s {latency_above_s:g}; give at least that"
            )
        on = (
            errors,
            latency_above_s is not None,
            cost_above_usd is not None,
            bool(quality_metric),
            complaints,
        )
        if shares and not any(on):
            raise ValueError("errors: no guardrail is on, so nothing could promote it; turn one on")
        self._on = tuple(place for place, each in enumerate(on) if each)
        self.needs_cost = cost_above_usd is not None
        """Whether `finished` is to be told what a request cost."""
        self._weights = (0.0, *shares, 1.0)
        self.first_weight = self._weights[1]
        """Share of the units until the first change of stage."""
        self._salt = key_of("rollout", salt)
        self.unit = unit
        """What is assigned."""
        self._unit: itemgetter[int] = itemgetter(
            Request._fields.index("request_id" if unit == "request" else unit)
        )
        self._units = None if unit == "request" else Units()
        self._look_s = look_s
        self._holds = [0, *(_looks(hold_s, look_s) for hold_s in holds)]
        self._matures = 1 + _looks(maturity_s, look_s)
        """Looks from the beginning of a bucket until it is taken in."""
        self._hour = max(1, round(_HOUR_S / look_s))
        self._errors = errors
        self._only_errors = not on[1] and not on[2]
        """Whether nothing that `finished` tells of a request that ended well matters."""
        self._latency_above_s = inf if latency_above_s is None else latency_above_s
        self._cost_above_usd = inf if cost_above_usd is None else cost_above_usd
        self._quality = quality_metric
        self._quality_below = -inf if quality_below is None else quality_below
        self._complaints = complaints
        self._enough = log(max(1, len(self._on)) / alpha)
        self._margin = margin
        self._z = -NormalDist().inv_cdf(promote_alpha / gates)
        self._gates = gates
        self._minimum = minimum
        self._correlation = correlation
        planned = max(1, ceil(fsum(holds) / _HOUR_S))
        self._evidence = [HarmEvidence(planned=planned, risk_ratio=risk_ratio) for _ in self._on]

        self._stage = 1
        self._first = -1
        """The look at which it began."""
        self._began = [0] * len(self._weights)
        """The looks at which the stages began."""
        self._turns: list[tuple[float, float]] = []
        """(when, weight) of the changes of stage."""
        self._ends = 0
        """The look at which this stage may end next."""
        self._taken_at = 0
        """The look that was worked off last."""
        self._outcomes = 0
        """Of the canary, mature, in this stage."""
        self._asked = 0
        """How often the last gate was asked."""
        self._paused = False
        self._said: set[int] = set()
        """Reasons for which this stage was held."""
        self._split = [0, 0]
        """Units that each arm got in this stage."""
        self._split_log = 0.0
        """Logarithm of the Bayes factor of the stages before."""
        self._alarmed = False
        self._buckets: dict[int, list[int]] = {}
        """Counts that are not mature, by look of assignment."""
        self._now = -1
        """The look whose requests are being assigned, or -1."""
        self._labelled: dict[int, set[int]] = {}
        """Which requests of a bucket were labelled: twice the request, odd for complaints."""
        self._started = 0
        """How many start times the evidence has."""
        self._stratum = (0, 0)
        self._in_stratum = [0] * _STAGE
        self._fewness = 0.0
        """How much the arms of the last stratum differ by chance, see `Units.fewness`; 0: requests are the units."""
        self._terms: list[Terms] = [NOTHING for _ in self._on]
        self._totals = [0] * _STAGE
        """Of the strata before this one."""
        self.late = 0
        """Outcomes and labels that came too late to count."""
        self._follow()

    # --- what it is told ----------------------------------------------------------------------------

    def assign(self, t_s: float, request: Request) -> int:
        """Return 1 for the improvement, 0 for the baseline."""
        if t_s >= self._until_s:
            self._open(t_s)
        unit_of = self._unit
        unit = unit_of(request) or request[0]
        hashed = mix(unit ^ self._salt)
        variant = 1 if hashed < self._share else 0
        self._counts[variant] += 1
        if self._counting is not None:
            self._counting.count(hashed, variant)
        return variant

    def propensity(self, assigned_s: float, variant: int) -> float:
        """Return the probability with which a request that was assigned at that moment got this variant."""
        place = bisect_right(self._turns, (assigned_s, inf)) - 1
        weight = self._turns[place][1] if place >= 0 else self.first_weight
        return weight if variant else 1.0 - weight

    def finished(
        self,
        t_s: float,
        assigned_s: float,
        variant: int,
        request: Request,
        ok: bool,
        latency_s: float,
        cost_usd: float,
    ) -> Advance | None:
        """Take in a request's one outcome: it is only counted."""
        if ok and (
            self._only_errors or not (latency_s > self._latency_above_s or cost_usd > self._cost_above_usd)
        ):
            return None
        if not self._comparing:
            return None
        counts = self._buckets.get(self._look_of(assigned_s))
        if counts is None:
            self.late += 1
            return None
        if not ok and self._errors:
            counts[_BAD + variant] += 1
        if latency_s > self._latency_above_s:
            counts[_BAD + 2 + variant] += 1
        if cost_usd > self._cost_above_usd:
            counts[_BAD + 4 + variant] += 1
        return None

    def observed(self, t_s: float, observed: Observed) -> Advance | None:
        """Take in a late label: it is only counted, the first of a request and metric."""
        if observed.metric == "complaint":
            guarded, complaint = self._complaints and observed.value > 0.0, True
        else:
            guarded, complaint = bool(self._quality) and observed.metric == self._quality, False
        if not guarded or not self._comparing:
            return None
        bucket = -1 if observed.assigned_s is None else self._look_of(observed.assigned_s)
        counts = self._buckets.get(bucket)
        if counts is None:
            self.late += 1
            return None
        labelled = self._labelled.setdefault(bucket, set())
        label = 2 * observed.request_id + complaint
        if label in labelled:
            return None
        if len(labelled) >= _MOST_LABELLED:
            self.late += 1
            return None
        labelled.add(label)
        if complaint:
            counts[_BAD + 2 * _COMPLAINTS + observed.variant] += 1
        else:
            counts[_LABELLED + observed.variant] += 1
            if observed.value < self._quality_below:
                counts[_BAD + 2 * _QUALITY + observed.variant] += 1
        return None

    def ordered(self, t_s: float, kind: ChangeKind) -> Advance | None:
        """Obey an operator; return what came of it, or None where the order changes nothing."""
        last = len(self._weights) - 1
        if kind == ChangeKind.ROLL_BACK and self._stage:
            return self._turn(t_s, 0, Reason(Code.OPERATOR))
        if kind == ChangeKind.PROMOTE and self._comparing:
            return self._turn(t_s, last, Reason(Code.OPERATOR))
        if kind == ChangeKind.PAUSE_ROLLOUT and self._comparing and not self._paused:
            self._paused = True
            return self._stay(Reason(Code.PAUSED, a=self._stage))
        if kind == ChangeKind.RESUME_ROLLOUT and self._paused:
            self._paused = False
            self._ends = max(self._ends, self._look_of(t_s) + 1)
            return self._stay(Reason(Code.RESUMED, a=self._stage))
        return None

    # --- looks --------------------------------------------------------------------------------------

    def wake_s(self) -> float:
        """Return when a look ends that has requests, something matures, or this stage may end; or inf."""
        if not self._comparing or self._first < 0:
            return inf
        look = self._ends if self._ends > self._taken_at else inf
        if self._now >= 0:
            look = min(look, self._now + 1)
        if self._buckets:
            look = min(look, next(iter(self._buckets)) + self._matures)
        return look * self._look_s

    def wake(self, t_s: float) -> Advance | None:
        """Take in what is mature, then see whether the stage ends; return a change of stage or a hold, if any."""
        if not self._comparing or self._first < 0:
            return None
        look = self._taken_at = self._look_of(t_s)
        if 0 <= self._now < look:
            self._close()
        mature = [bucket for bucket in self._buckets if bucket + self._matures <= look]
        for bucket in mature:
            harmed = self._take_in(bucket)
            if harmed is not None:
                return self._turn(t_s, 0, harmed)
        if not self._alarmed and self._ratio() >= ALARM:
            self._alarmed = True
        if look < self._ends or self._paused:
            return None
        if self._now >= 0:  # woken late: the weight may not change within a bucket
            self._ends = look + 1
            return None
        return self._end(t_s, look)

    @property
    def evidence(self) -> float:
        """The largest evidence of harm of any guardrail: 1 at the start, a rollback at K / alpha."""
        return exp(min(_LARGEST, max((each.log_value for each in self._evidence), default=0.0)))

    def _end(self, t_s: float, look: int) -> Advance | None:
        if self._outcomes < self._minimum:
            return self._hold(
                Reason(Code.TOO_FEW, Constraint.NONE, self._stage, self._outcomes, self._minimum)
            )
        if self._alarmed:
            ratio = exp(min(_LARGEST, self._ratio()))
            return self._hold(Reason(Code.SAMPLE_RATIO, Constraint.NONE, self._stage, ratio, exp(ALARM)))
        if self._stage < len(self._weights) - 2:
            reason = Reason(Code.STAGE_DONE, Constraint.NONE, self._stage, self._outcomes, self.evidence)
            return self._turn(t_s, self._stage + 1, reason)
        if self._asked == self._gates:
            return None
        self._asked += 1
        bound = max(self._bound(place) for place in range(len(self._on)))
        if bound < self._margin:
            reason = Reason(Code.NON_INFERIOR, Constraint.NONE, bound, self._margin, self._outcomes)
            return self._turn(t_s, self._stage + 1, reason)
        self._ends = look + self._holds[self._stage]
        return self._stay(
            Reason(Code.INCONCLUSIVE, Constraint.NONE, min(bound, 1.0), self._margin, self._outcomes)
        )

    def _take_in(self, bucket: int) -> Reason | None:
        counts = self._buckets.pop(bucket)
        self._labelled.pop(bucket, None)
        while self._first + self._started * self._hour <= bucket:
            self._started += 1
            for each in self._evidence:
                each.start()
        stage = counts[_STAGE]
        self._outcomes += counts[1] if stage == self._stage else 0
        hour = (stage, (bucket - self._began[stage]) // self._hour)
        if hour != self._stratum:
            self._terms = [self._together(place) for place in range(len(self._on))]
            self._totals = [one + more for one, more in zip(self._totals, self._in_stratum, strict=True)]
            if stage != self._stratum[0]:
                for each in self._evidence:
                    each.regroup()
            self._stratum, self._in_stratum = hour, [0] * _STAGE
        if self._units is not None and stage == self._stage:
            self._fewness = self._units.fewness()
        self._in_stratum = [one + more for one, more in zip(self._in_stratum, counts, strict=False)]
        share = self._weights[stage] if self._units is None else counts[1] / (counts[0] + counts[1])
        harmed = None
        for place, guardrail in enumerate(self._on):
            bad, evidence = _BAD + 2 * guardrail, self._evidence[place]
            if counts[bad] or counts[bad + 1]:
                evidence.add(share, counts[bad + 1], counts[bad], self._spread(guardrail))
                log_value = evidence.log_value
                if log_value >= self._enough and harmed is None:
                    harmed = Reason(
                        Code.EVIDENCE_OF_HARM,
                        Constraint.NONE,
                        exp(min(_LARGEST, log_value)),
                        exp(self._enough),
                        guardrail,
                    )
        return harmed

    def _risk(self, guardrail: int) -> float:
        """Return the baseline's risk so far, a little on the low side where nothing bad was seen."""
        place, bad = _LABELLED if guardrail == _QUALITY else 0, _BAD + 2 * guardrail
        requests = self._totals[place] + self._in_stratum[place]
        return min(1.0, (self._totals[bad] + self._in_stratum[bad] + 0.5) / (requests + 1))

    def _spread(self, guardrail: int) -> float | None:
        if self._units is None:
            return None
        return spread_of(self._correlation, self._risk(guardrail), self._fewness)

    def _together(self, place: int) -> Terms:
        """Return a guardrail's strata, this one included."""
        counts, guardrail = self._in_stratum, self._on[place]
        bad, requests = _BAD + 2 * guardrail, _LABELLED if guardrail == _QUALITY else 0
        arms = (counts[requests + 1], counts[bad + 1], counts[requests], counts[bad])
        return together(self._terms[place], stratum(*arms, self._margin, self._fewness))

    def _bound(self, place: int) -> float:
        risk = self._risk(self._on[place])
        unit_variance = self._correlation * risk * (1.0 - risk)
        return upper_bound(self._together(place), self._z, unit_variance)

    def _ratio(self) -> float:
        return self._split_log + log_bayes_factor(self._split[1], self._split[0], self._weights[self._stage])

    # --- stages -------------------------------------------------------------------------------------

    def _hold(self, reason: Reason) -> Advance | None:
        if int(reason.code) in self._said:
            return None
        self._said.add(int(reason.code))
        return self._stay(reason)

    def _stay(self, reason: Reason) -> Advance:
        return Advance(0, self._stage, self._weights[self._stage], reason)

    def _turn(self, t_s: float, stage: int, reason: Reason) -> Advance:
        if self._comparing:
            self._split_log = self._ratio()
        look = self._look_of(t_s)
        self._turns.append((t_s, self._weights[stage]))
        self._split = [0, 0]
        if self._units is not None:
            self._units.forget()
        self._stage = stage
        self._began[stage] = look
        self._outcomes = 0
        self._said = set()
        if 0 < stage < len(self._weights) - 1:
            self._ends = look + self._holds[stage]
        else:  # nothing is compared any more
            self._buckets, self._labelled, self._now, self._paused = {}, {}, -1, False
        self._follow()
        return self._stay(reason)

    def _follow(self) -> None:
        """Set what follows from the state."""
        self._comparing = 0 < self._stage < len(self._weights) - 1
        self._counting = self._units if self._comparing else None
        self._share = int(self._weights[self._stage] * 2.0**64)
        self._counts = self._buckets[self._now] if self._now >= 0 else [0, 0]
        self._until_s = (self._now + 1) * self._look_s if self._now >= 0 else -inf
        if not self._comparing:
            self._until_s = inf

    # --- buckets ------------------------------------------------------------------------------------

    def _look_of(self, t_s: float) -> int:
        """Return the last look at or before a moment; a quotient alone may round to the next one."""
        look = int(t_s / self._look_s)
        if look * self._look_s > t_s:
            return look - 1
        return look + 1 if (look + 1) * self._look_s <= t_s else look

    def _open(self, t_s: float) -> None:
        if self._now >= 0:
            self._close()
        look = self._now = self._look_of(t_s)
        if self._first < 0:
            self._first = self._began[self._stage] = self._taken_at = look
            self._ends = look + self._holds[self._stage]
        counts = [*[0] * _STAGE, self._stage]
        self._buckets[look] = self._counts = counts
        self._until_s = (look + 1) * self._look_s

    def _close(self) -> None:
        counts = self._buckets[self._now]
        new = (counts[0], counts[1]) if self._units is None else self._units.take_new()
        self._split = [self._split[0] + new[0], self._split[1] + new[1]]
        self._now = -1
        self._until_s = -inf

    # --- state --------------------------------------------------------------------------------------

    def snapshot(self) -> dict[str, Any]:
        """Return the state as plain JSON data."""
        saved = super().snapshot()
        saved["evidence"] = [each.snapshot() for each in self._evidence]
        saved["units"] = None if self._units is None else self._units.snapshot()
        return saved

    def restore(self, saved: dict[str, Any]) -> None:
        """Take on a state that `snapshot` returned."""
        super().restore(saved)
        for each, state in zip(self._evidence, saved["evidence"], strict=True):
            each.restore(state)
        if self._units is not None:
            self._units.restore(saved["units"])
        self._follow()


def _schedule(
    strategy: str, weights: tuple[float, ...], holds_s: tuple[float, ...]
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    if strategy != "stages":
        if weights or holds_s:
            raise ValueError(
                f"weights and holds_s: {strategy} has its own; write strategy: stages to give them"
            )
        return _SCHEDULES[strategy]
    if not weights:
        raise ValueError("weights: strategy stages needs at least one, such as 5%")
    if any(later <= earlier for earlier, later in pairwise((0.0, *weights, 1.0))):
        raise ValueError(
            f"weights: 0, then {list(weights)}, then 1 must rise, so that units only join; 1 follows by itself"
        )
    if len(holds_s) not in (1, len(weights)):
        raise ValueError(f"holds_s: give one, or as many as weights ({len(weights)}), not {len(holds_s)}")
    return weights, holds_s if len(holds_s) == len(weights) else holds_s * len(weights)


def _looks(duration_s: float, look_s: float) -> int:
    looks = int(duration_s / look_s)
    return looks if looks * look_s >= duration_s else looks + 1
