import json
import re
import subprocess
import sys
from html.parser import HTMLParser

import pyarrow.parquet as pq
import pytest
import typst

from glowsim.report import model, write_reports
from glowsim.report.cost import breakdown
from glowsim.report.numbers import DASH, rounded
from glowsim.report.reading import read_first
from glowsim.resources import resource

SECTIONS = [
    "levels", "figures", "expectations", "latency", "time", "instances", "cost", "endings", "about",
    "origins", "controllers", "again",
]  # fmt: skip
VOID = {"meta", "br", "img", "link", "hr", "input", "path", "use", "rect", "image"}


class Page(HTMLParser):
    """Reads a page: its tags, its text, its attributes; fails when tags do not match."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str]] = []
        self.cells: list[list[str]] = []
        self.words: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag == "tr":
            self.cells.append([])
        if tag in ("td", "th"):
            self.cells[-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)
        if {"td", "th"} & set(self.open):
            self.cells[-1][-1] += data

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def rows_with(page: Page, first: str) -> list[list[str]]:
    return [[" ".join(cell.split()) for cell in row] for row in page.cells if row and row[0].strip() == first]


def report_of(run) -> dict:
    return model.build(run.folder, run.scenario, run.summary, run.manifest)


def typeset(run, selector: str) -> str:
    """Return the words that the PDF's template sets in the elements that a selector finds."""
    template = resource("reports/templates", "report.typ")
    inputs = {"report": json.dumps(report_of(run))}
    found = json.loads(typst.query(str(template), selector, root=str(template.parent), sys_inputs=inputs))
    words: list[str] = []

    def walk(node):
        if isinstance(node, dict):
            words.extend(value for key, value in node.items() if key == "text" and isinstance(value, str))
            for value in node.values():
                walk(value)
        elif isinstance(node, list):
            for value in node:
                walk(value)

    walk(found)
    return " ".join(words)


@pytest.fixture(scope="module")
def page(small):
    return Page(small.html)


def test_every_section_is_there_in_order(small, page):
    ids = [value for name, value in page.attributes if name == "id" and value in SECTIONS]
    assert ids == SECTIONS
    links = [
        value
        for name, value in page.attributes
        if name == "href" and value.startswith("#") and len(value) > 1
    ]
    assert [link for link in links if link[1:] in SECTIONS] == [f"#{name}" for name in SECTIONS]
    order = (
        "A small fleet",
        "Simulation report",
        "Does it hold?",
        "Not met.",
        "A level is met",
        "Means over",
    )
    places = [page.text.index(words) for words in order]
    assert places == sorted(places)


def test_the_answer_names_every_level_with_its_figures(small, page):
    assert "Of 3 service levels 1 is not met and 2 are met." in page.text
    for slo in small.summary["slos"]:
        shown = rounded(slo["value"], slo["low"], slo["high"], slo["unit"], [slo["target"]])
        (row,) = rows_with(page, slo["name"])
        assert row[3:5] == [shown.value, shown.span]
        mark = {"met": "✓", "not met": "✗", "undecided": "?"}[slo["verdict"]]
        assert row[5] == f"{mark} {slo['verdict']}"
        assert f"is {shown.value}" in page.text


@pytest.mark.parametrize(
    ("name", "metric", "unit"),
    [
        ("launched", "launched", "count"),
        ("success rate", "success_rate", "fraction"),
        ("latency, p99", "latency_s_p99", "duration"),
        ("first token, p95", "first_token_s_p95", "duration"),
        ("cost per completed task", "cost_usd_per_task", "money"),
        ("cache hits", "cache_hit_rate", "fraction"),
        ("retries", "retries", "count"),
        ("output tokens, answered", "tokens_out", "count"),
    ],
)
def test_the_page_shows_the_figures_of_the_summary(small, page, name, metric, unit):
    found = small.summary["metrics"][metric]
    shown = rounded(found["value"], found["low"], found["high"], unit)
    assert [name, shown.value, shown.span] in rows_with(page, name)


def test_expectations_say_whether_they_held(page):
    assert ["success rate", "50 % to 100 %", "✓ held", "a guess"] in [
        row[:2] + row[3:] for row in rows_with(page, "success rate")
    ]
    (missed,) = [row for row in rows_with(page, "latency, mean") if len(row) == 5]
    assert missed[1] == "60 min to 2 h"
    assert missed[3:] == ["✗ not held", DASH]


def test_decisions_carry_their_reasons(small, page):
    table = pq.read_table(small.folder / "decisions.parquet").to_pylist()
    first = [row for row in table if row["replication"] == 0 and row["kind"] == "scale"]
    assert first
    assert first[0]["why"] in [row[3] for row in page.cells if len(row) == 4]


def test_endings_add_up_to_the_requests_after_the_warm_up(small, page):
    table = pq.read_table(small.folder / "requests.parquet").to_pylist()
    counted = [row for row in table if row["replication"] == 0 and row["t_arrive_s"] >= 10.0]
    shown = report_of(small)["sections"][SECTIONS.index("endings")]["blocks"][0]["rows"]
    assert sum(int(row[2].replace(",", "")) for row in shown) == len(counted)
    invalid = sum(row["outcome"] == "invalid" for row in counted)
    assert invalid > 0
    assert ["failed", "not retryable; last attempt: invalid", str(invalid)] in [row[:3] for row in shown]


def test_costs_by_model_add_up_to_the_costs_by_agent(small):
    groups = breakdown(read_first(small.folder), small.scenario, small.summary)
    total = sum(each["tokens_usd"] + each["instances_usd"] for each in groups.values())
    assert total == pytest.approx(sum(each["cost_usd"] for each in small.summary["agents"].values()))
    mini = groups["mini", "tax"]
    billed = (mini["tokens_in"] - mini["tokens_cached"]) * 0.15e-6 + mini["tokens_out"] * 0.60e-6
    assert mini["tokens_usd"] == pytest.approx(billed + mini["tokens_cached"] * 0.075e-6)
    assert mini["instances_usd"] > 0
    assert groups["large", DASH]["instances_usd"] == 0


def test_the_page_says_how_to_do_it_again(small, page):
    for word in (small.manifest["digest"], small.manifest["glowsim"], small.manifest["python"], "numpy"):
        assert word in page.text
    assert "glowsim run small.yaml -s 'seed=3 <b>'" in page.text
    assert "Little's law" in page.text


def test_the_description_keeps_its_paragraphs(small):
    about = report_of(small)["sections"][SECTIONS.index("about")]
    assert [block["text"] for block in about["blocks"]] == ["One line and its rest.", "Another paragraph."]


def test_figures_are_described_and_hold_no_words_of_the_user(small, page):
    pictures = [
        block for section in report_of(small)["sections"] for block in section["blocks"] if "svg" in block
    ]
    assert len(pictures) == 3
    for picture in pictures:
        assert picture["description"]
        assert "tax" not in picture["svg"]
    assert "role" in dict(page.attributes)


def loads_nothing(html: str) -> bool:
    page = Page(html)
    urls = [
        value
        for name, value in page.attributes
        if name in ("src", "href", "xlink:href", "srcset", "data", "action")
    ]
    in_css = re.findall(r"url\(([^)]*)\)", html)
    return (
        all(url.startswith("#") for url in urls)
        and all(url.strip("'\"").startswith("#") for url in in_css)
        and "@import" not in html
        and not page.tags & {"script", "iframe", "link", "object", "embed", "img"}
        and not any(name.startswith("on") for name, _ in page.attributes)
    )


def test_the_page_needs_no_network_and_no_script(small):
    assert loads_nothing(small.html)
    assert not loads_nothing(small.html.replace("</main>", '<img src="https://example.org/x.png"></main>'))
    assert "default-src 'none'" in small.html
    assert len(small.html) < 1_500_000


def test_the_pdf_sets_the_same_answer_and_sections(small):
    assert small.pdf.startswith(b"%PDF-")
    assert "Of 3 service levels 1 is not met and 2 are met." in typeset(small, "<answer>")
    headings = typeset(small, "heading")
    for section in report_of(small)["sections"]:
        assert section["title"] in headings


def test_equal_runs_give_equal_bytes(small):
    write_reports(small.folder, small.scenario, small.summary, small.manifest)
    assert (small.folder / "report.html").read_text(encoding="utf-8") == small.html
    assert (small.folder / "report.pdf").read_bytes() == small.pdf


HOSTILE = [
    "<script>alert(1)</script>",
    "</style></title><img src=x onerror=alert(1)>",
    '#eval("1") #panic() $x^2$ @ref *b* _i_ `c` \\u{41} \\',
    "{{ 7*7 }} {% raw %}",
    "'\"&amp; \x01\x1b\x85\uffff",
    "w" * 250,
]


@pytest.fixture(scope="module")
def attacked(written):
    """A run whose texts all want to be code."""
    overrides = [f"{key}={json.dumps(words)}" for key, words in [
        ("title", HOSTILE[0] + HOSTILE[2]), ("question", HOSTILE[1] + HOSTILE[3]),
        ("description", HOSTILE[4] + HOSTILE[5]),
        ("slos.0.name", HOSTILE[5]), ("slos.1.name", HOSTILE[2]), ("slos.2.name", HOSTILE[0]),
        ("expectations.0.source", HOSTILE[1]), ("origins.fleet.tax.service.source", HOSTILE[3]),
    ]]  # fmt: skip
    return written(*overrides)


def test_hostile_text_stays_text_on_the_page(attacked):
    assert loads_nothing(attacked.html)
    page = Page(attacked.html)
    assert HOSTILE[0] in page.text
    assert HOSTILE[1] in page.text
    assert "{{ 7*7 }} {% raw %}" in page.text
    assert "\x01" not in attacked.html
    assert "\x1b" not in attacked.html


def test_hostile_text_stays_text_in_the_pdf(attacked):
    assert attacked.pdf.startswith(b"%PDF-")
    title = typeset(attacked, "heading.where(level: 1)")
    assert HOSTILE[0] in title
    assert '#eval("1") #panic() $x^2$' in title


def test_one_replication_is_plainly_undecided(attacked):
    page = Page(attacked.html)
    assert "All 3 service levels are undecided. One run alone decides nothing" in page.text
    assert "one replication has no interval; run at least 2" in page.text
    assert "95 % interval" not in [cell for row in page.cells if len(row) == 3 for cell in row]


def test_no_request_at_all_still_gives_a_report(written):
    run = written("workload.0.rate=1/d", "workload.0.tasks=1")
    assert run.summary["metrics"]["launched"]["value"] == 0
    page = Page(run.html)
    assert "No request was answered" in page.text
    assert "fast : latency, p95 has no value" in page.text
    assert "nan" not in re.sub(r"<style>.*?</style>", "", run.html, flags=re.DOTALL).lower()
    assert "None" not in page.text
    assert run.pdf.startswith(b"%PDF-")


def test_sixty_agents_are_cut_to_the_twenty_dearest(written):
    run = written("fleet.tax.count=59")
    costs = sorted((each["cost_usd"] for each in run.summary["agents"].values()), reverse=True)
    tables = report_of(run)["sections"][SECTIONS.index("cost")]["blocks"]
    (agents,) = [block for block in tables if block["title"].startswith("By agent")]
    assert len(agents["rows"]) == 20
    assert agents["more"].startswith("and 40 more")
    assert float(agents["rows"][0][8].strip("$")) == pytest.approx(costs[0], rel=0.01)
    assert len(run.html) < 1_500_000


def test_importing_the_report_draws_in_nothing_heavy():
    heavy = "{'matplotlib', 'pyarrow', 'pandas', 'scipy', 'typst', 'jinja2'}"
    code = f"import sys, glowsim.report; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
