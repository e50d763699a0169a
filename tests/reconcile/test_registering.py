"""Registering recordings: who may, what is taken, and what a wrong TaskId costs."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from reconcile import MAX_BODY_BYTES, RegisterListener, Registration, parse_registration, register, registering
from store import Store, find_question, migrate
from telemetry import metrics
from tests.reconcile.world import APP, AWorld, a_class, callback_of

TOKEN = "0123456789abcdefghijklmnopqrstuv"
TASK = {"sdk_app_id": APP, "task_id": "a-task", "room_id": 7}


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with Store(f"sqlite+aiosqlite:///{tmp_path}/store.db") as store:
        await migrate(store)
        yield store


async def post(
    listener: RegisterListener,
    content: Any = None,
    *,
    token: str | None = TOKEN,
    path: str = "/recordings",
    method: str = "POST",
    **headers: str,
) -> tuple[int, dict[str, Any], Any]:
    """Return the status, the content and the headers of the answer."""
    if token is not None:
        headers["Authorization"] = f"Bearer {token}"
    data = {"data": content} if isinstance(content, bytes) else {"json": content}
    url = f"http://127.0.0.1:{listener.port}{path}"
    async with aiohttp.ClientSession() as session, session.request(method, url, headers=headers, **data) as answer:
        return answer.status, await answer.json(), answer.headers


async def test_a_registration_is_kept_and_the_vendor_is_asked_once_its_callbacks_had_their_time(store: Store) -> None:
    async with RegisterListener(store=store, token=TOKEN) as listener:
        assert (await post(listener, TASK))[:2] == (202, {"accepted": True})
        question = await find_question(store, APP, "a-task")
        assert question is not None
        assert (question.why, question.found_by, question.room_id) == ("it was registered", "registration", 7)
        assert 50 < question.due_at_us / 1e6 - question.found_at_us / 1e6 <= 60
        # Again, as somebody does who got no answer.
        assert (await post(listener, TASK))[0] == 202


async def test_nobody_registers_without_the_token_or_learns_anything(store: Store) -> None:
    async with RegisterListener(store=store, token=TOKEN) as listener:
        for token in (None, "", TOKEN[:-1], TOKEN.upper(), TOKEN + " x"):
            for path in ("/recordings", "/elsewhere"):
                status, content, headers = await post(listener, TASK, token=token, path=path)
                assert (status, headers["WWW-Authenticate"]) == (401, "Bearer")
                assert TOKEN not in str(content)
        assert await find_question(store, APP, "a-task") is None


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"", "truncated"),
        (b"[]", "Expected `object`"),
        (b'{"sdk_app_id": 1}', "task_id"),
        (b'{"sdk_app_id": 0, "task_id": "t"}', "$.sdk_app_id"),
        (b'{"sdk_app_id": "1", "task_id": "t"}', "$.sdk_app_id"),
        (b'{"sdk_app_id": 1.5, "task_id": "t"}', "$.sdk_app_id"),
        (b'{"sdk_app_id": 99999999999999999999, "task_id": "t"}', "$.sdk_app_id"),
        (b'{"sdk_app_id": 1, "task_id": ""}', "$.task_id"),
        (b'{"sdk_app_id": 1, "task_id": "a\\u0000b"}', "$.task_id"),
        (b'{"sdk_app_id": 1, "task_id": "a\\nb"}', "$.task_id"),
        (b'{"sdk_app_id": 1, "task_id": "%s"}' % (b"x" * 256), "$.task_id"),
        (b'{"sdk_app_id": 1, "task_id": "t", "room_id": -1}', "$.room_id"),
        (b'{"sdk_app_id": 1, "task_id": "t", "roomid": 1}', "roomid"),
        (b'{"sdk_app_id": 1, "task_id": "\xff"}', "UTF-8"),
        (b'{"sdk_app_id": 1, "task_id": "t", "room_id":' + b"[" * 4000, "room_id"),
    ],
)
async def test_what_is_no_registration_is_refused_with_the_reason(store: Store, body: bytes, sentence: str) -> None:
    async with RegisterListener(store=store, token=TOKEN) as listener:
        status, content, _ = await post(listener, body)
        assert status == 400
        assert sentence in content["error"]


@given(body=st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
def test_no_body_does_more_than_be_refused(body: bytes) -> None:
    with suppress(ValueError):
        assert parse_registration(body).task_id


async def test_large_encoded_slow_and_misdirected_requests_are_refused(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registering, "_BODY_TIMEOUT_S", 0.2)
    async with RegisterListener(store=store, token=TOKEN) as listener:
        assert (await post(listener, b" " * (MAX_BODY_BYTES + 1)))[0] == 413
        assert (await post(listener, TASK, **{"Content-Encoding": "gzip"}))[0] == 415
        assert (await post(listener, TASK, path="/recordings/a-task"))[0] == 404
        status, _, headers = await post(listener, method="GET")
        assert (status, headers["Allow"]) == (405, "POST")
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
        writer.write(
            b"POST /recordings HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: 50\r\n\r\n{"
            % TOKEN.encode()
        )
        assert (await asyncio.wait_for(reader.readline(), 5)).startswith(b"HTTP/1.1 408")
        writer.close()
        await writer.wait_closed()


async def test_other_applications_are_refused_where_they_are_named(store: Store) -> None:
    async with RegisterListener(store=store, token=TOKEN, apps=frozenset({APP})) as listener:
        assert (await post(listener, TASK))[0] == 202
        assert (await post(listener, TASK | {"sdk_app_id": 2}))[0] == 422


async def test_too_many_are_told_to_come_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registering, "_BURST", 3)
    monkeypatch.setattr(registering, "_EVERY_S", 60.0)
    async with RegisterListener(store=store, token=TOKEN) as listener:
        statuses = [(await post(listener, TASK | {"task_id": f"t{number}"}))[0] for number in range(5)]
        assert statuses == [202, 202, 202, 429, 429]
        assert (await post(listener, TASK))[2]["Retry-After"] == "1"


async def test_what_cannot_be_kept_is_told_to_come_again(tmp_path: Path) -> None:
    async with (
        Store(f"sqlite+aiosqlite:///{tmp_path}/none.db") as store,
        RegisterListener(store=store, token=TOKEN) as listener,
    ):
        with structlog.testing.capture_logs() as logs:
            assert (await post(listener, TASK))[0] == 503
        assert logs[0]["event"] == "registration_not_kept"


async def test_on_this_machine_alone_no_token_is_needed_and_a_socket_does(store: Store, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(str(tmp_path / "register.sock"))
        async with RegisterListener(store=store, token=None, listening=listening):
            connector = aiohttp.UnixConnector(str(tmp_path / "register.sock"))
            async with (
                aiohttp.ClientSession(connector=connector) as session,
                session.post("http://localhost/recordings", json=TASK) as answer,
            ):
                assert answer.status == 202


async def test_refusals_are_counted_and_told_now_and_then_without_what_was_sent(store: Store) -> None:
    async with RegisterListener(store=store, token=TOKEN) as listener:
        before = metrics.REGISTRATIONS.labels("unauthorized")._value.get()
        with structlog.testing.capture_logs() as logs:
            for _ in range(5):
                await post(listener, TASK, token="a wrong one that is as long as it must be")
        assert metrics.REGISTRATIONS.labels("unauthorized")._value.get() == before + 5
        assert len(logs) == 1
        assert "wrong one" not in str(logs)


async def test_a_request_without_a_target_is_answered(store: Store) -> None:
    async with RegisterListener(store=store, token=TOKEN) as listener:
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
        writer.write(b"CONNECT \r\n\r\n")
        assert b" 401 " in await asyncio.wait_for(reader.readline(), 5)
        writer.close()
        await writer.wait_closed()


async def test_a_registered_recording_whose_callbacks_come_costs_no_question(world: AWorld) -> None:
    cls = a_class()
    async with world(cls, site="international") as w:
        await w.pass_by(70, lists=False)
        await register(w.store, Registration(sdk_app_id=APP, task_id=cls.task_id))
        await w.deliver(callback_of(cls, "OnlineRecordStarted"))
        await w.pass_by(600, lists=False)
        assert w.questions() == 0


async def test_a_registered_recording_whose_callbacks_cease_is_asked_about_within_hours(world: AWorld) -> None:
    cls = a_class()
    async with world(cls, site="international") as w:
        await w.pass_by(70, lists=False)
        await register(w.store, Registration(sdk_app_id=APP, task_id=cls.task_id))
        await w.deliver(callback_of(cls, "OnlineRecordStarted"))
        await w.pass_by(3 * 3600, step_s=600, lists=False)
        assert (await w.recording(cls.task_id)).status == "FINISHED"
        assert w.questions() == 1


async def test_a_registered_recording_of_which_every_callback_is_lost_is_known_within_two_minutes_and_to_its_end(
    world: AWorld,
) -> None:
    cls = a_class()
    async with world(cls, site="international") as w:
        w.clock.now_s = cls.created_at + 1.0
        await register(w.store, Registration(sdk_app_id=APP, task_id=cls.task_id, room_id=cls.room_id))
        await w.pass_by(90, step_s=5, lists=False)
        recording = await w.recording(cls.task_id)
        assert (recording.status, recording.room_id) == ("RECORDING", cls.room_id)
        assert [found.by for found in recording.found] == ["registration"]
        await w.pass_by(5400, step_s=60, lists=False)
        assert (await w.recording(cls.task_id)).status == "FINISHED"
        assert w.transport.types()[0] == "OnlineRecordStarted"
        asked = w.questions()
        await register(w.store, Registration(sdk_app_id=APP, task_id=cls.task_id))
        await w.pass_by(3600, step_s=60, lists=False)
        assert w.questions() == asked, "what is finished is asked about no more"


async def test_a_wrong_task_id_costs_a_few_questions_and_a_line_in_the_log(world: AWorld) -> None:
    async with world() as w:
        await register(w.store, Registration(sdk_app_id=APP, task_id="wrong"))
        with structlog.testing.capture_logs() as logs:
            await w.pass_by(86_400, step_s=600, lists=False)
        assert w.questions() == 3
        assert [(log["event"], log["found_by"]) for log in logs] == [("recording_not_found", "registration")]
        assert await w.statuses() == {}
