"""The recommendations on the dashboard's page, in headless Chromium."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import shutil

import pytest

HOSTILE = "<img src=x onerror=window.hacked=1>"


@pytest.fixture
def chromium():
    """Where a Chromium is."""
    found = shutil.which("chromium")
    if found is None or importlib.util.find_spec("playwright") is None:
        message = (
            "playwright or chromium is missing: install glowsim[test], and chromium by the system's packages"
        )
        if os.environ.get("GLOWSIM_CI") == "1":
            pytest.fail(message)
        pytest.skip(message)
    return found


def test_the_page_shows_what_stands(beside, chromium):
    from playwright.async_api import async_playwright

    here = beside.place(
        beside.fleet(
            {"guard": {"use": "size", "max_tokens_in": 10}, "breaker": {"use": "consecutive", "failures": 2}}
        )
    )
    here.write(*[beside.row(100.0 + i, instance=HOSTILE, status="error") for i in range(3)])

    async def main():
        here.now_s = 200.0
        async with here.advisor() as advice, async_playwright() as playwright:
            advice.listener.look()
            browser = await playwright.chromium.launch(
                executable_path=chromium, args=["--no-sandbox", "--disable-dev-shm-usage"]
            )
            page = await browser.new_page()
            complaints = []
            page.on("pageerror", lambda error: complaints.append(str(error)))
            page.on("console", lambda message: complaints.append(message.text))
            await page.goto(advice.admin_address)
            items = page.locator("#advice li")
            await items.nth(1).wait_for(timeout=30_000)
            said = [await items.nth(place).inner_text() for place in range(await items.count())]
            assert await page.locator("#advised").is_visible()
            hacked = await page.evaluate("window.hacked")
            await browser.close()
            return said, hacked, complaints

    said, hacked, complaints = asyncio.run(main())
    assert len(said) == 2
    assert "send nothing to" in said[0]
    assert "refuse requests like these" in said[1]
    assert "3 times" in said[1]
    assert hacked is None
    assert complaints == []
