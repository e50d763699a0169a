"""The settings of deploy/console, in front of a console: the name passes, live pages go on, the cookie is safe."""

import asyncio
import os
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import aiohttp
import pytest

from tests.console.world import TOKEN, running
from tests.servers.load_balancers import load_balancer_program

SETTINGS = Path(__file__).resolve().parents[2] / "deploy" / "console"
NAME = "tiw.school.example"


@asynccontextmanager
async def proxy(name: str, folder: Path, console_port: int) -> AsyncIterator[int]:
    """Run a proxy in front of a console, without TLS, which ends there anyway; give its port."""
    program = load_balancer_program(name)
    if program is None:
        pytest.skip(f"{name} is not installed")
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = int(held.getsockname()[1])
    text = (SETTINGS / {"nginx": "nginx.conf", "caddy": "Caddyfile"}[name]).read_text(encoding="utf-8")
    assert "127.0.0.1:8090" in text
    text = text.replace("127.0.0.1:8090", f"127.0.0.1:{console_port}")
    file = folder / "settings"
    if name == "nginx":
        site = "\n".join(line for line in text.splitlines() if "ssl_" not in line)
        site = site.replace("listen 443 ssl;", f"listen 127.0.0.1:{port};")
        places = "".join(
            f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        main = f"pid {folder}/pid; events {{}} http {{ {places} access_log off;\n{site}\n}}"
        command = [program, "-e", "stderr", "-p", str(folder), "-c", str(file), "-g", "daemon off;"]
    else:
        main = "{\n\tadmin off\n}\n" + text.replace(f"{NAME} {{", f"http://{NAME}:{port} {{\n\tbind 127.0.0.1")
        command = [program, "run", "--config", str(file), "--adapter", "caddyfile"]
    file.write_text(main, encoding="utf-8")
    with (folder / "log").open("wb") as log:
        running_proxy = await asyncio.create_subprocess_exec(
            *command, stdout=log, stderr=log, env={"PATH": os.environ["PATH"], "HOME": str(folder)}, cwd=folder
        )
    try:
        async with asyncio.timeout(30):
            while not _answers(port):
                assert running_proxy.returncode is None, (folder / "log").read_text(errors="replace")
                await asyncio.sleep(0.02)
        yield port
    finally:
        with suppress(ProcessLookupError):
            running_proxy.terminate()
        await running_proxy.wait()


def _answers(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.parametrize("name", ["nginx", "caddy"])
async def test_a_browser_logs_in_and_sees_a_live_page_through_a_proxy(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "proxy"
    folder.mkdir()
    async with (
        running(tmp_path, log_in=False, url=f"https://{NAME}") as world,
        proxy(name, folder, world.port) as port,
        aiohttp.ClientSession() as session,
    ):
        address, host = f"http://127.0.0.1:{port}", {"Host": NAME}
        login = session.post(f"{address}/login", headers=host, data={"token": TOKEN}, allow_redirects=False)
        async with login as answer:
            assert answer.status == 303
            for cookie in answer.headers.getall("Set-Cookie"):
                assert {"Secure", "HttpOnly", "SameSite=Strict"} <= {part.strip() for part in cookie.split(";")}
            cookie = next(one for one in answer.headers.getall("Set-Cookie") if one.startswith("__Host-tiw_console="))
        logged_in = {**host, "Cookie": cookie.partition(";")[0]}
        async with session.get(f"{address}/recordings", headers=logged_in) as answer:
            assert answer.status == 200
            assert "max-age" in answer.headers["Strict-Transport-Security"]
        # The first event comes while the answer goes on.
        async with session.get(f"{address}/live", headers=logged_in) as answer:
            assert answer.content_type == "text/event-stream"
            async with asyncio.timeout(30):
                assert await answer.content.readany()
        async with session.get(f"{address}/recordings", headers={**host}, allow_redirects=False) as answer:
            assert answer.status == 303
    shutil.rmtree(folder)
