"""What only a broker in another process can do to a transport: vanish, refuse, hang, and be changed by others."""

import asyncio
import contextlib
import ssl
import urllib.parse
from pathlib import Path
from typing import Any

import pytest
import structlog
from msgspec import structs

from broker import BrokerError, NotPublishedError
from broker.amqp import consuming as amqp_consuming
from broker.amqp import publishing as amqp_publishing
from broker.amqp.headers import read_message
from broker.amqp.transport import AmqpTransport
from tests.broker.amqp_broker import delete_queue, holds, message, open_amqp, paused, publish_in_the_end, wait_ready
from tests.broker.consumers import ARCHIVE
from tests.broker.inbox import AckingInbox, Inbox, eventually
from tests.broker.tcp_proxy import TcpProxy
from tests.servers.rabbitmq import MEMORY_LIMIT, RabbitMQServer


async def test_it_opens_while_the_broker_is_down_and_works_once_it_is_up(rabbitmq: RabbitMQServer, url: str) -> None:
    rabbitmq.kill()
    inbox = Inbox()
    try:
        async with (
            asyncio.timeout(60),
            open_amqp(url, confirm_timeout_s=0.3) as transport,
            transport.subscribe(ARCHIVE, inbox, prefetch=1) as subscription,
        ):
            assert not transport.is_ready
            assert not subscription.is_consuming
            with pytest.raises(NotPublishedError):
                await transport.publish(message())
            with pytest.raises(BrokerError):
                await transport.inspect(["archive"])
            await subscription.set_prefetch(2)
            await asyncio.to_thread(rabbitmq.start)
            await wait_ready(transport)
            await publish_in_the_end(transport, message())
            await inbox.wait(1)
    finally:
        await asyncio.to_thread(rabbitmq.start)


async def test_all_that_was_confirmed_arrives_though_the_broker_is_killed(rabbitmq: RabbitMQServer, url: str) -> None:
    confirmed: set[str] = set()
    inbox = AckingInbox()

    transport = open_amqp(url, confirm_timeout_s=0.5)

    async def keep_publishing() -> None:
        number = 0
        while True:
            number += 1
            with contextlib.suppress(NotPublishedError):
                await transport.publish(message(f"{number}"))
                confirmed.add(f"{number}")

    try:
        async with transport, transport.subscribe(ARCHIVE, inbox, prefetch=10) as subscription:
            traffic = asyncio.create_task(keep_publishing())
            await inbox.wait(100)
            await asyncio.to_thread(rabbitmq.kill)
            before = len(confirmed)
            await holds(lambda: not subscription.is_consuming)
            await asyncio.to_thread(rabbitmq.start)
            await holds(lambda: len(confirmed) > before + 100)
            traffic.cancel()
            await asyncio.wait((traffic,))
            await holds(lambda: confirmed <= set(inbox.event_ids))
            assert subscription.is_consuming
    finally:
        await asyncio.to_thread(rabbitmq.start)


async def test_plain_messages_leave_and_all_but_the_first_arrive_in_one_step(
    amqp_transport: AmqpTransport, monkeypatch: pytest.MonkeyPatch
) -> None:
    general: list[str] = []
    monkeypatch.setattr(amqp_publishing, "render_properties", lambda *_, **__: general.append("publish"))

    def read(*read: Any) -> Any:
        general.append("delivery")
        return read_message(*read)

    monkeypatch.setattr(amqp_consuming, "read_message", read)
    plain = structs.replace(message(), received_at_us=1_575_545_412_000_001, trace="t" * 55)
    inbox = AckingInbox()
    async with amqp_transport.subscribe(ARCHIVE, inbox, prefetch=1):
        for number in range(5):
            await amqp_transport.publish(structs.replace(plain, event_id=f"{number:032x}"))
        await inbox.wait(5)
    assert inbox.messages == [structs.replace(plain, event_id=f"{number:032x}") for number in range(5)]
    assert general == ["delivery"]


async def test_a_confirm_that_does_not_come_fails_in_time(rabbitmq: RabbitMQServer, url: str) -> None:
    inbox = AckingInbox()
    loop = asyncio.get_running_loop()
    async with open_amqp(url, confirm_timeout_s=0.5) as transport, transport.subscribe(ARCHIVE, inbox, prefetch=5):
        await wait_ready(transport)
        await transport.publish(message("before"))
        with paused(rabbitmq):
            start_s = loop.time()
            outcomes = await asyncio.gather(
                *(transport.publish(message(f"{number}")) for number in range(5)), return_exceptions=True
            )
            assert loop.time() - start_s < 2
            assert [type(outcome) for outcome in outcomes] == [NotPublishedError] * 5
            assert not transport.is_ready
        await publish_in_the_end(transport, message("after"))
        await holds(lambda: {"before", "after"} <= set(inbox.event_ids))


async def test_a_confirm_that_does_not_come_fails_nothing_else(rabbitmq: RabbitMQServer, url: str) -> None:
    async with open_amqp(url, confirm_timeout_s=2) as impatient:
        await wait_ready(impatient)
        with paused(rabbitmq):
            first = asyncio.create_task(impatient.publish(message("first")))
            await asyncio.sleep(1.5)
            second = asyncio.create_task(impatient.publish(message("second")))
            await asyncio.wait((first,))
            assert isinstance(first.exception(), NotPublishedError)
            assert not impatient.is_ready
        await second


async def test_a_caller_that_is_cancelled_disturbs_no_other(amqp_transport: AmqpTransport) -> None:
    cancelled = asyncio.create_task(amqp_transport.publish(message("cancelled")))
    other = asyncio.create_task(amqp_transport.publish(message("other")))
    await asyncio.sleep(0)
    cancelled.cancel()
    await other
    await amqp_transport.publish(message("after"))
    assert cancelled.cancelled()


async def test_it_survives_a_memory_alarm(rabbitmq: RabbitMQServer, url: str) -> None:
    management = f"http://{rabbitmq.host}:{rabbitmq.management_port}"
    async with open_amqp(url, confirm_timeout_s=0.5, management_url=management) as transport:
        await wait_ready(transport)
        await transport.publish(message("before"))
        try:
            await asyncio.to_thread(rabbitmq.ctl, "set_vm_memory_high_watermark", "0.000001")

            async def is_refused() -> bool:
                try:
                    await transport.publish(message("during"))
                except NotPublishedError:
                    return True
                return False

            # The alarm takes a moment to be raised.
            await eventually(is_refused)

            async def alarm_is_told() -> bool:
                return any("memory" in alarm for alarm in (await transport.info()).alarms or ())

            await eventually(alarm_is_told)
            (state,) = await transport.inspect(["archive"])
            assert state.ready >= 1
        finally:
            await asyncio.to_thread(rabbitmq.ctl, "set_vm_memory_high_watermark", "absolute", MEMORY_LIMIT)
        await publish_in_the_end(transport, message("after"))


async def test_the_next_address_is_tried_when_one_does_not_answer(url: str, unused_tcp_port: int) -> None:
    async with open_amqp(f"amqp://a:b@127.0.0.1:{unused_tcp_port}/", url) as transport:
        await wait_ready(transport)
        await transport.publish(message())
        (state,) = await transport.inspect(["archive"])
        assert state.ready == 1


async def test_an_encrypted_connection_is_only_made_to_whom_the_certificate_names(
    rabbitmq: RabbitMQServer, url: str, tmp_path: Path
) -> None:
    certificate = tmp_path / "certificate.pem"
    request = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    files = ["-addext", "subjectAltName=DNS:localhost", "-keyout", f"{tmp_path}/key.pem", "-out", f"{certificate}"]
    made = await asyncio.create_subprocess_exec("openssl", *request, *files, stderr=asyncio.subprocess.DEVNULL)
    assert await made.wait() == 0
    encryption = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    encryption.load_cert_chain(certificate, tmp_path / "key.pem")
    async with TcpProxy(rabbitmq.host, rabbitmq.port, encryption=encryption) as proxy:
        named = proxy.through(url).replace("amqp://", "amqps://").replace("127.0.0.1", "localhost")
        async with open_amqp(f"{named}?cafile={certificate}") as transport:
            await wait_ready(transport)
            await transport.publish(message())
        for other in (named, f"{named}?cafile={certificate}".replace("localhost", "127.0.0.1")):
            with pytest.raises(BrokerError, match="certificate verify failed"):
                await open_amqp(other).info()


async def test_the_management_api_tells_more(rabbitmq: RabbitMQServer, url: str) -> None:
    management = f"http://{rabbitmq.host}:{rabbitmq.management_port}/"
    inbox = Inbox()
    async with (
        open_amqp(url, management_url=management) as transport,
        transport.subscribe(ARCHIVE, inbox, prefetch=1),
    ):
        await transport.publish(message())
        await inbox.wait(1)

        async def unacked_is_counted() -> bool:
            (state,) = await transport.inspect(["archive"])
            return state.unacked == 1

        await eventually(unacked_is_counted)
        info = await transport.info()
    assert info.product == "RabbitMQ"
    assert info.alarms == ()
    assert info.feature_flags_disabled is not None


async def test_without_the_management_api_it_does_not_tell(url: str, unused_tcp_port: int) -> None:
    async with open_amqp(url, management_url=f"http://127.0.0.1:{unused_tcp_port}") as transport:
        await wait_ready(transport)
        (state,) = await transport.inspect(["archive"])
        info = await transport.info()
    assert (state.unacked, info.alarms, info.feature_flags_disabled) == (None, None, None)


async def test_no_password_reaches_a_log(
    rabbitmq: RabbitMQServer, amqp_vhost: str, url: str, unused_tcp_port: int, caplog: pytest.LogCaptureFixture
) -> None:
    password = urllib.parse.urlsplit(url).password
    assert password
    wrong = url.replace(f":{password}@", ":wr0ng@")
    nobody = f"amqp://u:{password}@127.0.0.1:{unused_tcp_port}/"
    with structlog.testing.capture_logs() as logs, caplog.at_level("DEBUG"):
        async with open_amqp(nobody, wrong, url) as transport, transport.subscribe(ARCHIVE, Inbox(), prefetch=1):
            await wait_ready(transport)
            await transport.publish(message())
            await asyncio.to_thread(delete_queue, rabbitmq, amqp_vhost, "tiw.archive")
            with pytest.raises(BrokerError):
                await open_amqp(wrong).inspect(["archive"])
    written = repr(logs) + caplog.text
    assert "broker_connected" in written
    assert "broker_not_reached" in written
    assert password not in written
    assert "wr0ng" not in written
