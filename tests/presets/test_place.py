"""The one reader of presets' files: whatever stands there is read as it is, or refused with its place."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from math import inf, isfinite, nan
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glowsim.presets import PresetError
from glowsim.presets.place import ORIGINS, Place

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
    max_leaves=5,
)
Read = Callable[[Place], Any]


def read(value: Any, how: Read) -> Any:
    return how(Place("here", {"key": value}))


@pytest.mark.parametrize(
    ("how", "may_be"),
    [
        (lambda place: place.text("key"), lambda x: isinstance(x, str) and x != ""),
        (lambda place: place.whole("key"), lambda x: type(x) is int and x >= 1),
        (lambda place: place.number("key"), lambda x: type(x) in (int, float) and isfinite(x)),
        (lambda place: place.number("key", 0, 1), lambda x: type(x) in (int, float) and 0 <= x <= 1),
        (
            lambda place: place.numbers("key", 0),
            lambda x: isinstance(x, list) and x and all(type(y) in (int, float) and 0 <= y < inf for y in x),
        ),
        (
            lambda place: place.parts("key"),
            lambda x: isinstance(x, list) and all(isinstance(y, dict) for y in x),
        ),
        (lambda place: place.part("key"), lambda x: isinstance(x, dict)),
    ],
    ids=["text", "whole", "number", "share", "numbers", "parts", "part"],
)
@given(anything)
def test_what_may_be_is_returned_and_anything_else_refused_with_its_place(
    how: Read, may_be: Callable[[Any], bool], value: Any
) -> None:
    if may_be(value):
        found = read(value, how)
        if isinstance(found, list):
            found = [part.found for part in found]
        elif isinstance(found, Place):
            found = found.found
        assert (list(found) if isinstance(found, tuple) else found) == value
    else:
        with pytest.raises(PresetError, match=r"^here: key(\[\d\])?: must (be|lie) "):
            read(value, how)


@given(st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0, 1.5]), max_size=4))
def test_probabilities_and_quantiles_are_in_order(x: list[float]) -> None:
    def accepted(how: Read) -> bool:
        try:
            return bool(read(x, how) == tuple(x))
        except PresetError:
            return False

    strictly = all(a < b for a, b in pairwise(x))
    assert accepted(lambda place: place.probabilities("key")) == (x[:1] == [0] and x[-1] == 1 and strictly)
    p = (0.0, 0.5, 1.0)
    assert accepted(lambda place: place.quantiles("key", p)) == (len(x) == 3 and x == sorted(x))
    assert accepted(lambda place: place.quantiles("key", p, 0.5)) == (
        len(x) == 3 and x == sorted(x) and x[0] >= 0.5
    )


@pytest.mark.parametrize(
    ("value", "how", "said"),
    [
        (nan, lambda place: place.number("key"), "key: must be a number, got nan"),
        (-inf, lambda place: place.number("key"), "key: must be a number, got -inf"),
        (10**400, lambda place: place.number("key"), "key: must be a number, got 1000"),
        (True, lambda place: place.whole("key"), "key: must be a whole number, at least 1, got True"),
        ([0.0, 1.5], lambda place: place.numbers("key", 0.5), r"key\[0\]: must lie in 0.5 .. inf, got 0"),
        ([], lambda place: place.numbers("key"), "key: must be a list of numbers, got none"),
        ([0, 0.7], lambda place: place.probabilities("key"), r"key: must increase from 0 to 1, got \[0.0, 0.7\]"),
        ([2, 1], lambda place: place.quantiles("key", (0, 1)), r"key: must be 2 numbers that never decrease, one for"),
        ("b", lambda place: place.one_of("key", ("a", "c")), "key: must be one of a, c, got 'b'"),
        ("ab", lambda place: place.texts("key"), "key: must be a list of texts, got 'ab'"),
        (1, lambda place: place.text("other"), "other: is missing"),
        ({"n": "x"}, lambda place: place.table("key"), "key: n: must be a number, got 'x'"),
        ([{"n": 1}, {}], lambda place: place.parts("key")[1].number("n"), r"key\[1\]: n: is missing"),
        ([{}, 7], lambda place: place.parts("key"), r"key\[1\]: must be a mapping, got int"),
        ({"n": {}}, lambda place: place.part("key").part("n").origin(), "key: n: origin: is missing"),
        ({"origin": "fitted"}, lambda place: place.part("key").attribution(), "key: source: is missing"),
    ],
)  # fmt: skip
def test_a_message_names_the_place_and_what_is_wrong(value: Any, how: Read, said: str) -> None:
    with pytest.raises(PresetError, match=f"^here: {said}"):
        read(value, how)


def test_a_file_that_is_no_mapping_is_named() -> None:
    with pytest.raises(PresetError, match=r"^mine\.yaml: must be a mapping, got list$"):
        Place("mine.yaml", [1])


def test_what_may_be_left_out_is_empty() -> None:
    place = Place("here", {})
    assert place.texts("remarks") == ()
    assert place.table("spread") == {}


@pytest.mark.parametrize("origin", ORIGINS)
def test_a_number_is_attributed_to_its_source(origin: str) -> None:
    assert Place("here", {"origin": origin, "source": "a paper"}).attribution() == f"{origin}: a paper"


def test_lists_of_texts_and_tables_are_read() -> None:
    assert read(["a", "b"], lambda place: place.texts("key")) == ("a", "b")
    assert read({"a": 1, "b": 2.5}, lambda place: place.table("key")) == {"a": 1.0, "b": 2.5}
