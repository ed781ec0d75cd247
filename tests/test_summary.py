from __future__ import annotations

from glowsim.results import TURNED_AWAY
from glowsim.summary import ENDED


def test_every_reason_to_turn_a_request_away_has_its_words_and_no_other() -> None:
    assert list(ENDED) == [code.name.lower() for code in TURNED_AWAY]
