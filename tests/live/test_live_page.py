"""The page in headless Chromium: it draws, keeps up, survives the daemon, and lets no text become markup."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import re
import shutil
from contextlib import AsyncExitStack, asynccontextmanager
from types import SimpleNamespace

import pytest

from glowsim.scenario import load

pytestmark = pytest.mark.usefixtures("_serving")

TEXT = """
title: A small fleet <img src=x onerror="window.hacked=1">
question: What does it look like?
seed: 1
duration: 10s
models:
  m: {input: $1/1M, output: $2/1M}
fleet:
  - {agent: tax, count: 45, domain: tax, model: m, instances: 1, concurrency: 4, service: {law: time, time: 2ms}}
  - {agent: audit-failing, domain: audit, model: m, instances: 1, concurrency: 1, service: {law: time, time: 1ms},
     failures: {error: 100%}}
workload:
  - {kind: poisson, rate: 1/s, agents: all, tokens_in: 100, tokens_out: 20}
"""
TOKEN, DEADLINE_S = "admin-0123456789abc", 60.0
HOSTILE = """<img src=x onerror="window.hacked=1"><script>window.hacked=2</script>'\\"&lt;"""


def missing():
    """Return what is missing for a browser, or None."""
    if importlib.util.find_spec("playwright") is None:
        return "playwright is missing: install glowsim[test]"
    if shutil.which("chromium") is None:
        return "chromium is missing: install it by the system's package manager"
    return None


@pytest.fixture(scope="module")
def browser():
    """A Chromium, and the loop that it lives in."""
    if (message := missing()) is not None:
        if os.environ.get("GLOWSIM_CI") == "1":
            pytest.fail(message)
        pytest.skip(message)
    from playwright.async_api import async_playwright

    with asyncio.Runner() as runner:
        playwright = runner.run(async_playwright().start())
        chromium = runner.run(
            playwright.chromium.launch(
                executable_path=shutil.which("chromium"),
                # In a container there is neither a user to become nor much shared memory.
                args=["--no-sandbox", "--disable-dev-shm-usage"],
            )
        )
        yield SimpleNamespace(chromium=chromium, run=runner.run)
        runner.run(chromium.close())
        runner.run(playwright.stop())


@asynccontextmanager
async def served(path, environment=None, admin_port=0):
    """Yield a daemon and an HTTP client of it."""
    import aiohttp

    from glowsim.live.daemon import serving
    from glowsim.live.settings import settings

    chosen = settings(
        environment=environment or {},
        journal_path=path / "fleet.journal",
        port=0,
        admin_port=admin_port,
        grace_s=2.0,
    )
    async with serving(load(TEXT), chosen) as daemon, aiohttp.ClientSession() as session:
        yield daemon, session


@asynccontextmanager
async def opened(browser, address, *, complains=False, **given):
    """Yield a page of the dashboard; in the end nothing may have been complained of."""
    context = await browser.chromium.new_context(**({"viewport": {"width": 1280, "height": 800}} | given))
    page = await context.new_page()
    complaints = []
    page.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: complaints.append(f"error: {error}"))
    page.set_default_timeout(15_000)
    try:
        await page.goto(address)
        yield page
        assert await page.evaluate("window.hacked") is None
        if not complains:
            assert complaints == []
    finally:
        await context.close()


async def ask(daemon, session, agent, n=1):
    for _ in range(n):
        async with session.post(
            f"{daemon.address}/v1/agents/{agent}/tasks", json={"input": "hello"}
        ) as answer:
            await answer.read()


def in_time(browser, main):
    async def bounded():
        async with asyncio.timeout(DEADLINE_S):
            await main()

    browser.run(bounded())


def row(page, agent):
    return page.locator(f'tr[data-row="{agent}"]')


def test_it_draws_the_fleet_and_keeps_up(browser, tmp_path):
    async def main():
        async with served(tmp_path) as (daemon, session):
            await ask(daemon, session, "tax-001", 3)
            async with opened(browser, daemon.admin_address) as page:
                await page.wait_for_selector("tr[data-row]")
                assert (
                    await page.locator("h1").text_content()
                    == 'A small fleet <img src=x onerror="window.hacked=1">'
                )
                assert await page.locator("tr[data-row]").count() == 46
                tiles = await page.locator("#tiles").inner_text()
                assert "No feedback yet" in tiles, "nothing is made up"
                assert "3 in 15 min" in tiles
                assert "Nobody" in await page.locator("#top").inner_text()
                rate = row(page, "tax-002").locator('[data-cell="rate"]')
                assert await rate.text_content() == "0"
                await ask(daemon, session, "tax-002", 2)
                await ask(daemon, session, "audit-failing", 30)
                daemon.driver.observe(4, "rating", 4.0)
                await page.get_by_text("4.0 / 5").wait_for()
                assert await rate.text_content() != "0"
                failing = row(page, "audit-failing")
                await failing.get_by_text("attention").wait_for()
                assert "100 % errors" in await page.locator("#attention").inner_text()
                assert await page.locator("tr[data-row]").first.get_attribute("data-row") == "audit-failing"
                assert "1 needs attention" in await page.locator("#headline").inner_text()

    in_time(browser, main)


def test_it_says_that_the_certificate_lapsed(browser, tmp_path, monkeypatch):
    from glowsim.live.validity import Validity

    lapse = {"what": "<b>mean</b> tokens", "value": 300.0, "low": 90.0, "high": 110.5}
    monkeypatch.setattr(Validity, "state", lambda self: {"status": "lapsed", "lapse": lapse})

    async def main():
        async with served(tmp_path) as (daemon, _), opened(browser, daemon.admin_address) as page:
            said = await page.locator("#headline .lapse").inner_text()
            assert said.strip() == "the certificate lapsed: <b>mean</b> tokens was 300, earned on 90 to 111"

    in_time(browser, main)


def test_it_survives_the_daemon_and_says_so_meanwhile(browser, tmp_path):
    async def main():
        async with AsyncExitStack() as closing, AsyncExitStack() as running:
            daemon, session = await running.enter_async_context(served(tmp_path))
            port = int(daemon.admin_address.rpartition(":")[2])
            await ask(daemon, session, "tax-001", 3)
            page = await closing.enter_async_context(opened(browser, daemon.admin_address, complains=True))
            await page.locator("#link").get_by_text("live,").wait_for()
            await running.aclose()
            await page.get_by_text("no connection since").wait_for()
            assert await page.locator("body").get_attribute("class") == "lost"
            assert "3 in 15 min" in await page.locator("#tiles").inner_text(), "the last figures stay"
            daemon, session = await running.enter_async_context(served(tmp_path, admin_port=port))
            await page.locator("#link").get_by_text("live,").wait_for()
            assert await page.locator("body").get_attribute("class") == ""
            await ask(daemon, session, "tax-003", 1)
            await page.get_by_text("1 in 15 min").first.wait_for()

    in_time(browser, main)


def test_it_asks_for_the_token_and_keeps_it_in_the_tab(browser, tmp_path):
    async def main():
        environment = {"GLOWSIM_ADMIN_TOKEN": TOKEN}
        async with (
            served(tmp_path, environment) as (daemon, _),
            opened(browser, daemon.admin_address, complains=True) as page,
        ):
            await page.locator("#token").fill("wrong")
            await page.keyboard.press("Enter")
            await page.get_by_text("That is not the admin's token.").wait_for()
            await page.locator("#token").fill(TOKEN)
            await page.get_by_role("button", name="Show the fleet").click()
            await page.wait_for_selector("tr[data-row]")
            assert await page.locator("#login").is_hidden()
            await page.reload()
            await page.wait_for_selector("tr[data-row]")
            assert TOKEN not in page.url
            assert await page.context.cookies() == []
            assert TOKEN not in await page.content()

    in_time(browser, main)


class Doctored:
    """A document in which every text that can come from elsewhere is hostile, in the place of the daemon's own."""

    def __init__(self, document):
        self.telemetry = document.telemetry
        self._made = document.made

    def made(self, t_s, *, admitting):
        document = self._made(t_s, admitting=admitting)
        agent = document["agents"][0]
        for name in ("domain", "model", "region"):
            agent[name] = HOSTILE
        agent["why"] = [HOSTILE]
        agent["status"] = "critical"
        agent["outcomes"] = {HOSTILE: 1}
        agent["feedback"] = {HOSTILE: {"n": 1, "mean": 1.0}}
        replica = {"number": 0, "state": "ready", "in_flight": 0, "slots": 1, "gate": 0}
        agent["replicas"] = [replica]
        name = agent["name"]
        alert = {"t_s": 0.0, "agent": name, "subject": HOSTILE, "severity": "critical", "why": HOSTILE}
        decision = {"t_s": 0.0, "agent": name, "before": 1, "want": 2, "why": HOSTILE}
        stage = {"t_s": 0.0, "stage": 0, "weight": 0.0, "why": HOSTILE}
        variant = {
            "name": HOSTILE, "ended": 1, "share": 1.0, "error_share": 0.0, "p50_s": 1.0, "p95_s": None,
        }  # fmt: skip
        agent["decisions"] = [decision]
        return document | {
            "title": HOSTILE,
            "attention": [{"agent": name, "status": "critical", "why": [HOSTILE]}],
            "alerts": {"open": [alert], "recent": [alert, alert | {"t_s": 1.0}]},
            "decisions": [decision],
            "breakers": [
                {"agent": name, "instance": 0, "state": "open", "since_s": 0.0, "again_s": 9.0},
                {"agent": name, "instance": 1, "state": "half-open", "since_s": None, "again_s": None},
            ],
            "rollouts": [{"agent": name, "weight": 0.0, "stages": [stage], "variants": [variant]}],
            "domains": [document["domains"][0] | {"domain": HOSTILE}],
            "fleet": document["fleet"] | {"feedback": {HOSTILE: {"n": 1, "mean": 1.0}}},
            "top": [
                {
                    "agent": name,
                    "answered": 1,
                    "ended": 1,
                    "at_least": 0.2,
                    "p95_s": 1.0,
                    "satisfaction": None,
                }
            ],
        }

    def steps(self, t_s, *, admitting):
        yield self.made(t_s, admitting=admitting)


def test_no_text_becomes_markup_wherever_it_stands(browser, tmp_path, monkeypatch):
    from glowsim.live.dashboard import routes

    begin = routes.Dashboard.__init__

    def doctored(self, document, driver, **given):
        begin(self, Doctored(document), driver, **given)

    monkeypatch.setattr(routes.Dashboard, "__init__", doctored)

    async def main():
        async with served(tmp_path) as (daemon, _), opened(browser, daemon.admin_address) as page:
            await page.wait_for_selector("tr[data-row]")
            await page.locator("button.agent").first.click()
            places = (
                "h1", "#attention", "#decisions", "#alerts", "#rollouts", "#learning", "#costs", "tr.details",
                'tr[data-row="tax-001"]',
            )  # fmt: skip
            for place in places:
                assert HOSTILE in await page.locator(place).first.text_content(), place
            assert await page.locator("img").count() == 0
            assert await page.locator("script").count() == 1
            assert "half-open" in await page.locator("#breakers").text_content()

    in_time(browser, main)


def test_the_table_is_worked_by_keyboard(browser, tmp_path):
    async def main():
        async with served(tmp_path) as (daemon, session):
            await ask(daemon, session, "tax-007", 2)
            async with opened(browser, daemon.admin_address) as page:
                await page.wait_for_selector("tr[data-row]")
                active = "document.activeElement.textContent"
                await page.keyboard.press("/")
                await page.keyboard.type("tax-00")
                assert await page.locator("tr[data-row]").count() == 9
                assert await page.locator("#shown").text_content() == "9 of 46"
                await page.keyboard.press("ArrowDown")
                assert await page.evaluate(active) == "tax-007", "the one with requests is the first"
                await page.keyboard.press("ArrowDown")
                await page.keyboard.press("Enter")
                opened_one = await page.evaluate(active)
                details = page.locator(f"#details-{opened_one}")
                assert "no request in 24 h" in await details.inner_text()
                await ask(daemon, session, opened_one, 2)
                await details.get_by_text("within its limits").wait_for()
                assert await page.evaluate(active) == opened_one, "a tick takes the focus from nobody"
                await page.keyboard.press("Escape")
                assert await page.locator("tr[data-row]").count() == 46
                await page.keyboard.press("/")
                await page.keyboard.type("nobody at all")
                assert await page.locator("#none").is_visible()
                await page.keyboard.press("Escape")
                await page.get_by_role("button", name="Agent", exact=True).focus()
                await page.keyboard.press("Enter")
                heads = page.locator('th[data-key="name"]')
                assert await heads.get_attribute("aria-sort") == "ascending"
                assert await page.locator("tr[data-row]").first.get_attribute("data-row") == "audit-failing"
                await page.keyboard.press("Enter")
                assert await heads.get_attribute("aria-sort") == "descending"
                assert await page.locator("tr[data-row]").first.get_attribute("data-row") == "tax-045"

    in_time(browser, main)


CONTRASTS = """() => {
  const channel = (c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  const light = (rgb) => { const [r, g, b] = rgb.match(/[0-9.]+/g).map(Number);
    return 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b); };
  const ground = (node) => { for (; node; node = node.parentElement) {
    const colour = getComputedStyle(node).backgroundColor;
    if (!/, 0\\)$/.test(colour)) return colour; } return "rgb(255, 255, 255)"; };
  const walker = document.createTreeWalker(document.querySelector("main"), NodeFilter.SHOW_TEXT);
  const found = [];
  for (let text = walker.nextNode(); text; text = walker.nextNode()) {
    const node = text.parentElement;
    if (!text.textContent.trim() || !node.getClientRects().length) continue;
    const [a, b] = [light(getComputedStyle(node).color), light(ground(node))].sort((x, y) => y - x);
    found.push([(a + 0.05) / (b + 0.05), text.textContent.slice(0, 40)]);
  }
  return found.sort((x, y) => x[0] - y[0]);
}"""


FITS = """() => [...document.querySelectorAll(".details .grid > div, .side > section")]
  .every((one) => one.scrollWidth <= one.clientWidth)"""
KINDS = "all => [...new Set(all.map(one => one.textContent + one.querySelector('svg').innerHTML))]"


def test_both_themes_read_well_and_no_width_scrolls_sideways(browser, tmp_path):
    async def main():
        async with served(tmp_path) as (daemon, session):
            await ask(daemon, session, "audit-failing", 30)
            await ask(daemon, session, "tax-001", 25)
            async with opened(browser, daemon.admin_address) as page:
                await page.wait_for_selector("tr[data-row]")
                await page.locator("button.agent").first.click()
                kinds = await page.locator("#rows .status").evaluate_all(KINDS)
                shapes = {kind.partition("<")[2] for kind in kinds}
                assert len(kinds) == len(shapes) == 3, "a shape of its own for each word"
                for theme in ("light", "dark"):
                    await page.emulate_media(color_scheme=theme)
                    ground = await page.evaluate("getComputedStyle(document.body).backgroundColor")
                    assert (ground == "rgb(255, 255, 255)") == (theme == "light")
                    for width in (1280, 768, 360):
                        await page.set_viewport_size({"width": width, "height": 780})
                        contrasts = await page.evaluate(CONTRASTS)
                        assert len(contrasts) > 100
                        assert contrasts[0][0] >= 4.5, (theme, width, contrasts[:3])
                        assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth"), (
                            width
                        )

    in_time(browser, main)


def test_a_daemon_of_another_version_is_not_misread(browser, tmp_path, monkeypatch):
    from glowsim.live.dashboard import document

    monkeypatch.setattr(document, "VERSION", 2)

    async def main():
        async with (
            served(tmp_path) as (daemon, _),
            opened(browser, daemon.admin_address) as page,
        ):
            await page.get_by_text("this page reads version 1").wait_for()
            assert await page.locator("#fleet").is_hidden()

    in_time(browser, main)


# --- a simulation in progress ------------------------------------------------------------------------

SIMULATED = """
title: An hour in a while <img src=x onerror="window.hacked=1">
question: How does it go?
seed: 1
duration: 1h
models:
  m: {input: $1/1M, output: $2/1M}
fleet:
  - agent: tax
    domain: tax
    model: m
    instances: 1
    concurrency: 4
    instance_price: $1/h
    service: {law: time, time: 4s}
controllers:
  scaler: {use: agent_scaler, min_instances: 1, max_instances: 9, look: 10s}
workload:
  - {kind: poisson, rate: 3/s, tokens_in: 100, tokens_out: 20}
"""


def test_a_simulation_is_said_to_be_one_goes_on_at_its_pace_and_ends(browser, watched):
    async def main():
        async with watched(load(SIMULATED), speed=20.0) as shown, opened(browser, shown.address) as page:
            progress = page.locator("#progress")
            await progress.get_by_text("Simulation running").wait_for()
            title = (await page.title()).removeprefix("! ")  # the fleet is soon overloaded, by design
            assert (
                title
                == """An hour in a while <img src=x onerror="window.hacked=1"> \u00b7 simulation \u00b7 glowsim"""
            )
            assert "simulation" in (await page.locator("header").inner_text()).lower()
            await progress.get_by_text(re.compile(r"00:\d\d:[1-5]\d of")).wait_for()
            said = await progress.inner_text()
            assert "of 01:00:00" in said
            assert "\u00d7 real time" in said
            assert await page.locator("#speed").input_value() == "20"
            share = float(await page.locator("#share").get_attribute("value") or 0)
            assert 0.0 <= share < 0.5
            await page.get_by_role("button", name="Pause").click()
            await progress.get_by_text("Simulation paused").wait_for()
            held = await shown.once(lambda its: its["state"] == "paused")
            await page.locator("#speed").select_option("max")
            await shown.once(lambda its: its["wished"] == "max")
            assert (await shown.once(lambda its: True))["t_s"] == held["t_s"]
            await page.locator("body").click(position={"x": 1, "y": 1})
            await page.keyboard.press("p")
            await progress.get_by_text("Simulation ended").wait_for()
            assert await page.locator("#pace").is_hidden()
            assert "its report is being written" in await progress.inner_text()
            shown.simulation.judged("met")
            await progress.get_by_text("every service level is met").wait_for()
            assert "at 01:00:0" in await progress.inner_text()
            assert await page.locator("#share").evaluate("one => one.value") == 1
            assert "at 00:00:" in await page.locator("#decisions").inner_text()
            await row(page, "tax").get_by_role("button").click()
            assert "simulated" in await page.locator("#details-tax").inner_text()
            assert "midnight UTC" not in await page.locator("main").inner_text()

    in_time(browser, main)


def test_when_glowsim_is_closed_the_last_figures_of_a_simulation_stay(browser, watched):
    async def main():
        async with AsyncExitStack() as closing, AsyncExitStack() as running:
            shown = await running.enter_async_context(watched(load(SIMULATED), speed=1e6))
            page = await closing.enter_async_context(opened(browser, shown.address, complains=True))
            await page.locator("#progress").get_by_text("Simulation ended").wait_for()
            await running.aclose()
            await page.get_by_text("these are the last figures").wait_for()
            assert await page.locator("body").get_attribute("class") in ("", None)
            assert "Simulation ended" in await page.locator("#progress").inner_text()

    in_time(browser, main)


def test_a_simulation_reads_well_in_both_themes_and_on_a_phone(browser, watched):
    async def main():
        async with watched(load(SIMULATED), speed=60.0) as shown, opened(browser, shown.address) as page:
            await page.locator("#progress").get_by_text("real time").wait_for()
            await page.keyboard.press("p")
            await page.locator("#progress").get_by_text("Simulation paused").wait_for()
            for theme in ("light", "dark"):
                await page.emulate_media(color_scheme=theme)
                for width in (1280, 768, 360):
                    await page.set_viewport_size({"width": width, "height": 780})
                    contrasts = await page.evaluate(CONTRASTS)
                    assert contrasts[0][0] >= 4.5, (theme, width, contrasts[:3])
                    assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth"), width
            order = []
            for _ in range(12):
                await page.keyboard.press("Tab")
                order.append(await page.evaluate("document.activeElement.id"))
            assert order.index("pause") < order.index("speed") < order.index("filter")

    in_time(browser, main)
