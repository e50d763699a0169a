from pathlib import Path

from tests.console.world import running, text_of


async def test_x(tmp_path: Path) -> None:
    async with running(tmp_path) as world:
        page = await world.browser.get("/")
        print(page.status, text_of(page.text))
        page = await world.browser.get("/?format=json")
        print(page.status, page.text)
        page = await world.browser.get("/consumers")
        print(page.status, text_of(page.text))
        page = await world.browser.get("/consumer?name=started")
        print(page.status, text_of(page.text))
        page = await world.browser.get("/consumers?format=json")
        print(page.status, page.text)
