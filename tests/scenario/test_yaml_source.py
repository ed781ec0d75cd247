import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from glowsim.scenario.problems import ScenarioError
from glowsim.scenario.source import MAX_BYTES, MAX_NODES, read_file, read_text

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(10**9), 10**9)
    | st.text(st.characters(codec="ascii", min_codepoint=1), max_size=9)
)
DATA = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.from_regex(r"[a-z]{1,5}", fullmatch=True), inner, max_size=4)
    ),
)


def refused(text, name="<text>"):
    with pytest.raises(ScenarioError) as caught:
        read_text(text, name)
    (problem,) = caught.value.problems
    return problem


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("yes", "yes"), ("No", "No"), ("on", "on"), ("true", True), ("False", False), ("~", None),
        ("12", 12), ("-3", -3), ("012", 12), ("1:30", "1:30"), ("0.5", 0.5), (".5", 0.5), ("1e3", 1000.0),
        (".inf", float("inf")),
        ("1_000", "1_000"), ("2001-01-01", "2001-01-01"), ("'12'", "12"), ('"true"', "true"), ("5%", "5%"),
        ("$0.15/1M", "$0.15/1M"),
    ],
)  # fmt: skip
def test_scalars_follow_the_core_schema_of_yaml_1_2(text, value):
    assert read_text(f"a: {text}").plain() == {"a": value}


@given(DATA)
def test_agrees_with_an_independent_reader(data):
    import io
    import json

    text = json.dumps({"root": data})
    assert read_text(text).plain() == YAML(typ="safe", pure=True).load(io.StringIO(text))


def test_surrogate_pairs_as_json_writes_them_are_one_character():
    assert read_text('{"a": "\\ud83d\\ude00"}').plain() == {"a": "\N{GRINNING FACE}"}


def test_everything_knows_its_place():
    root = read_text("a:\n  b: 300ms\n  c: [x, yy]\n")
    inner = root.value["a"]
    assert inner.keys["b"][1:] == (1, 2, 1)
    assert inner.value["b"].mark[1:] == (1, 5, 5)
    assert inner.value["c"].value[1].mark[1:] == (2, 9, 2)


def test_an_alias_is_a_copy_of_its_anchor():
    assert read_text("a: &x [1, 2]\nb: *x\n").plain() == {"a": [1, 2], "b": [1, 2]}


def test_billion_laughs_is_refused_before_it_is_expanded():
    rows = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    rows += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 8)]
    problem = refused("\n".join(rows))
    assert "aliases" in problem.message


def test_an_expansion_beyond_the_bound_is_refused_even_with_few_aliases():
    rows = [f"a: &a [{', '.join(['x'] * 1000)}]", f"b: &b [{', '.join(['*a'] * 10)}]", "c: [*b, *b]"]
    problem = refused("\n".join(rows))
    assert problem.message == f"more than {MAX_NODES} values (aliases expanded)"
    assert problem.line == 3


def test_aliases_cannot_nest_deeper_than_text_could():
    rows = ["a0: &a0 [x]"] + [f"a{i}: &a{i} [*a{i - 1}]" for i in range(1, 40)]
    assert "nested deeper than 32 levels (aliases expanded)" in refused("\n".join(rows)).message


@pytest.mark.parametrize(
    "text", ["[" * 100_000, "{a: " * 100_000, "- " * 100_000, "\n".join(" " * i + "a:" for i in range(1000))]
)
def test_deep_nesting_is_refused_without_recursion(text):
    assert refused(text).message == "nested deeper than 32 levels"


def test_many_values_are_refused():
    assert "more than 20000 values" in refused("[" + "a, " * 30_000 + "]").message


def test_a_large_file_is_refused_unread(tmp_path):
    path = tmp_path / "large.yaml"
    path.write_bytes(b"\xff" * (MAX_BYTES + 1))
    with pytest.raises(ScenarioError, match="larger than 1024 KiB"):
        read_file(path)


@pytest.mark.parametrize(
    ("text", "message", "line"),
    [
        ("a: 1\na: 2\n", "the key 'a' is here twice; the first is on line 1", 2),
        ("a: !foo 1\n", "the tag '!foo' is not supported", 1),
        ("a: !!python/object:os.system x\n", "is not supported", 1),
        ("a: 1\n---\nb: 2\n", "a second document begins here", 2),
        ("a: *x\n", "refers to no anchor above it", 1),
        ("a: &x [*x]\n", "refers to itself", 1),
        ("a: &x 1\nb: &x 2\n", "the anchor '&x' is defined twice", 2),
        ("a: &x {b: 1}\nc:\n  <<: *x\n", "merge keys", 3),
        ("[1]: 2\n", "a key must be a plain text", 1),
        ("a: &x b\n*x : 2\n", "a key must be a plain text", 2),
        ("a:\n\t- b\n", "a tab cannot indent; use spaces", 2),
        ("a: b: c\n", "a second ':' on this line", 1),
        ("a: [1\n", "is not YAML", 2),
        ('a: "\\ud800"\n', "half a surrogate pair", 1),
        ('a: "\\0"\n', "NUL", 1),
        ("", "is empty", 0),
        ("# nothing\n", "is empty", 0),
        ("a: \0", "holds a NUL character", 0),
        ("a: \x1b[31m", "is not YAML", 0),
    ],
)
def test_what_is_not_plain_yaml_is_refused_with_its_place(text, message, line):
    problem = refused(text)
    assert message in problem.message
    assert problem.line == line


def test_a_file_that_is_not_there_or_not_text_says_so(tmp_path):
    with pytest.raises(ScenarioError, match="cannot be read: No such file"):
        read_file(tmp_path / "none.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"a: 1\nb: \xe9\n")
    with pytest.raises(ScenarioError, match=r"is not UTF-8 .byte 8, line 2."):
        read_file(tmp_path / "latin.yaml")
    (tmp_path / "bom.yaml").write_bytes(b"\xef\xbb\xbfa: 1\n")
    assert read_file(tmp_path / "bom.yaml").plain() == {"a": 1}
