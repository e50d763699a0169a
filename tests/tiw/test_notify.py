"""`tiw notify`, and what `tiw config` and `tiw doctor` say of the channels."""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from store import Notice, NoticeResult, Store, add_notices, claim_notices, end_notices, migrate, postpone_notices
from tiw.doctor import Check, check_notify
from tiw.parser import main
from tiw.settings import read_settings

SECRET = "very-secret-1234"


class Robot(BaseHTTPRequestHandler):
    """A robot of WeCom that takes every text but those for the key `wrong`."""

    taken: list[str]

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        code = 93000 if "key=wrong" in self.path else 0
        if not code:
            self.taken.append(body["text"]["content"])
        answer = json.dumps({"errcode": code, "errmsg": "invalid webhook url" if code else "ok"}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library calls it so
        """Say nothing."""


@pytest.fixture
def robot() -> Iterator[str]:
    """Give the address of a robot."""
    Robot.taken = []
    server = HTTPServer(("127.0.0.1", 0), Robot)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/cgi-bin/webhook/send"
    server.shutdown()
    server.server_close()


@pytest.fixture
def run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Run a command with settings; give its code and what it printed."""
    monkeypatch.setenv("TIW_DATA_DIR", str(tmp_path))

    def run(line: str, **settings: str) -> tuple[int, str, str]:
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        code = main(line.split())
        printed = capsys.readouterr()
        assert SECRET not in printed.out + printed.err
        return code, printed.out, printed.err

    return run


def test_one_message_is_sent_and_the_answer_shown(run: Callable[..., tuple[int, str, str]], robot: str) -> None:
    channels = f"wecom={robot}?key={SECRET}#keyword=Recording, wecom={robot}?key=wrong#name=other"
    code, out, _ = run("notify test wecom", TIW_NOTIFY=channels, TIW_NOTIFY_LANGUAGE="both")
    assert (code, out) == (0, "wecom  sent\n")
    (text,) = Robot.taken
    assert text.startswith("Recording tiw notify test")
    assert "Nothing has happened" in text
    code, out, _ = run("notify test other")
    assert code == 1
    assert out.startswith("other  refused  93000: its address leads to no robot")
    code, out, _ = run("notify test other --json")
    assert {"channel": "other", "kind": "wecom", "result": "refused"}.items() <= json.loads(out).items()


def test_a_channel_that_there_is_not_is_named(run: Callable[..., tuple[int, str, str]]) -> None:
    code, _, err = run("notify test wecom")
    assert (code, err) == (2, "tiw: TIW_NOTIFY names no channel: set it, such as wecom=https://...\n")
    code, _, err = run("notify test other", TIW_NOTIFY=f"slack=https://h/{SECRET}")
    assert (code, err) == (2, "tiw: TIW_NOTIFY names no channel 'other', only slack\n")


@pytest.mark.parametrize("command", ["notify test slack", "up", "notify run"])
def test_a_mistake_in_the_channels_stops_the_start(run: Callable[..., tuple[int, str, str]], command: str) -> None:
    code, _, err = run(command, TIW_NOTIFY=f"slak=https://h/{SECRET}", TIW_AMQP_URL="amqp://u:p@127.0.0.1:1/")
    assert code == 2
    assert err.splitlines()[-1].startswith("tiw: TIW_NOTIFY: channel 1 is not KIND=URL with a KIND of wecom,")


def test_on_its_own_it_needs_a_broker(run: Callable[..., tuple[int, str, str]]) -> None:
    code, _, err = run("notify run", TIW_NOTIFY=f"slack=https://h/{SECRET}")
    assert code == 2
    assert "needs TIW_AMQP_URL" in err


def test_the_settings_are_shown_without_the_addresses(run: Callable[..., tuple[int, str, str]]) -> None:
    channels = f"# {SECRET}\nslack=https://h/{SECRET}\nemail=smtp://u:{SECRET}@h/?to=a@b.c, {SECRET}"
    _, out, _ = run("config --json", TIW_NOTIFY=channels)
    assert json.loads(out)["notify"] == ["slack=***", "email=***", "***"]
    _, out, _ = run("config --reveal")
    assert "slack=***" in out


def notice(number: int, channel: str = "wecom") -> Notice:
    return Notice(
        notice_id=f"{channel}-{number}",
        channel=channel,
        rule="failed",
        severity="critical",
        sdk_app_id=1400000001,
        task_id="rtc30dje7c2g0cdc2v0o",
        data={"task_id": "rtc30dje7c2g0cdc2v0o", "room_id": 7, "error_code": "x\x1b[31m"},
        expires_after_s=3600,
    )


async def fill(folder: Path, result: NoticeResult | None = NoticeResult.SENT, detail: str = "") -> None:
    async with Store(f"sqlite+aiosqlite:///{folder}/store.db") as store:
        await migrate(store)
        await add_notices(store, [notice(1), notice(2)])
        claimed = await claim_notices(store, channel="wecom", lease_holder="me", lease_s=60, limit=1)
        ids = [one.notice_id for one in claimed]
        if result is None:
            await postpone_notices(store, ids, lease_holder="me", after_s=60, detail=detail)
        else:
            await end_notices(store, ids, lease_holder="me", result=result, detail=detail)


def test_notices_are_listed_with_what_became_of_them(run: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    asyncio.run(fill(tmp_path))
    code, out, _ = run("notify list --wide", TIW_NOTIFY_LANGUAGE="en")
    assert code == 0
    assert "Room 7: recording failed" in out
    assert {"sent", "due"} <= set(out.split())
    _, out, _ = run("notify list --json --channel wecom --limit 1")
    (row,) = json.loads(out)
    assert row["rule"] == "failed"
    _, out, _ = run("notify list --channel nobody")
    assert out == "No notices match.\n"


async def checks(folder: Path, **environ: str) -> list[Check]:
    settings = read_settings({"TIW_DATA_DIR": str(folder), **environ}, is_terminal=False)
    async with Store(settings.database_url) as store:
        return [check async for check in check_notify(settings, store)]


@pytest.mark.parametrize(
    ("result", "detail", "is_ok", "said"),
    [
        (NoticeResult.SENT, "", True, "wecom: took the last notice, 1 notices wait"),
        (NoticeResult.REFUSED, "93000: copy it", False, "wecom did not take the last notice at "),
        (NoticeResult.GAVE_UP, "it answered 503", False, "it answered 503"),
        (None, "it was not reached", False, "wecom does not take what it is sent: it was not reached, 2 notices wait"),
    ],
)
async def test_a_channel_that_refuses_is_a_problem_until_it_takes_something(
    tmp_path: Path, *, result: NoticeResult | None, detail: str, is_ok: bool, said: str
) -> None:
    await fill(tmp_path, result, detail)
    wecom, slack = await checks(tmp_path, TIW_NOTIFY="wecom=https://h/?key=1,slack=https://h/2")
    assert wecom.ok == is_ok
    assert said in wecom.detail
    assert is_ok or "`tiw notify test wecom`" in wecom.remedy
    assert (slack.ok, slack.detail) == (True, "slack: never used: `tiw notify test slack`")


async def test_what_is_wrong_with_channels_and_templates_is_a_problem(tmp_path: Path) -> None:
    await fill(tmp_path)
    assert await checks(tmp_path) == []
    (check,) = await checks(tmp_path, TIW_NOTIFY=f"slak=https://h/{SECRET}")
    assert (check.ok, SECRET in check.detail) == (False, False)
    (tmp_path / "zh.toml").write_text("[failed", encoding="utf-8")
    template, slack = await checks(tmp_path, TIW_NOTIFY="slack=https://h/", TIW_NOTIFY_TEMPLATES=str(tmp_path))
    assert (template.ok, slack.ok) == (False, True)
    assert "zh.toml cannot be read" in template.detail
