"""What only a broker in another process can do to a transport: vanish, refuse, hang, and be changed by others."""

import asyncio
import contextlib
import ssl
import urllib.parse
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import aiormq
import pytest
import structlog

import schemas
from broker import BrokerError, Message, NotPublishedError
from broker.amqp.transport import AmqpTransport
from broker.topology import Topology
from tests.broker.consumers import ARCHIVE, CONSUMERS, FINISHED, LADDER, SHORT_S
from tests.broker.inbox import AckingInbox, Inbox, eventually
from tests.broker.tcp_proxy import TcpProxy
from tests.servers.rabbitmq import RabbitMQServer


@pytest.fixture
def url(rabbitmq: RabbitMQServer, amqp_vhost: str) -> str:
    return rabbitmq.url(amqp_vhost)


@pytest.fixture
async def transport(url: str) -> AsyncIterator[AmqpTransport]:
    async with _transport(url) as opened:
        await _ready(opened)
        yield opened


def _transport(*urls: str, confirm_timeout_s: float = 2.5, management_url: str | None = None) -> AmqpTransport:
    return AmqpTransport(
        urls,
        consumers=CONSUMERS,
        retry_delays_s=LADDER,
        confirm_timeout_s=confirm_timeout_s,
        management_url=management_url,
    )


def _message(event_id: str = "e" * 32) -> Message:
    return Message(body=b"{}", event_id=event_id, routing_key=FINISHED, received_at_us=1)


async def _ready(transport: AmqpTransport) -> None:
    async with asyncio.timeout(30):
        await transport.wait_ready()


async def _holds(condition: Callable[[], bool]) -> None:
    async def holds() -> bool:
        return condition()

    await eventually(holds)


async def _publish_in_the_end(transport: AmqpTransport, message: Message) -> None:
    async def published() -> bool:
        try:
            await transport.publish(message)
        except NotPublishedError:
            return False
        return True

    await eventually(published, timeout_s=30)


@contextlib.contextmanager
def _paused(server: RabbitMQServer) -> Iterator[None]:
    server.pause()
    try:
        yield
    finally:
        server.resume()


@contextlib.asynccontextmanager
async def _stranger(url: str) -> AsyncIterator[aiormq.abc.AbstractChannel]:
    connection = await aiormq.connect(url)
    try:
        yield await connection.channel()
    finally:
        await connection.close()


def _delete_queue(server: RabbitMQServer, vhost: str, queue: str) -> None:
    server.api("DELETE", f"queues/{vhost}/{queue}")


async def test_it_opens_while_the_broker_is_down_and_works_once_it_is_up(rabbitmq: RabbitMQServer, url: str) -> None:
    rabbitmq.kill()
    inbox = Inbox()
    try:
        async with (
            asyncio.timeout(60),
            _transport(url, confirm_timeout_s=0.3) as transport,
            transport.subscribe(ARCHIVE, inbox, prefetch=1) as subscription,
        ):
            assert not transport.is_ready
            assert not subscription.is_consuming
            with pytest.raises(NotPublishedError):
                await transport.publish(_message())
            with pytest.raises(BrokerError):
                await transport.inspect(["archive"])
            await subscription.set_prefetch(2)
            await asyncio.to_thread(rabbitmq.start)
            await _ready(transport)
            await _publish_in_the_end(transport, _message())
            await inbox.wait(1)
    finally:
        await asyncio.to_thread(rabbitmq.start)


async def test_all_that_was_confirmed_arrives_though_the_broker_is_killed(rabbitmq: RabbitMQServer, url: str) -> None:
    confirmed: set[str] = set()
    inbox = AckingInbox()

    transport = _transport(url, confirm_timeout_s=0.5)

    async def keep_publishing() -> None:
        number = 0
        while True:
            number += 1
            with contextlib.suppress(NotPublishedError):
                await transport.publish(_message(f"{number}"))
                confirmed.add(f"{number}")

    try:
        async with transport, transport.subscribe(ARCHIVE, inbox, prefetch=10) as subscription:
            traffic = asyncio.create_task(keep_publishing())
            await inbox.wait(100)
            await asyncio.to_thread(rabbitmq.kill)
            before = len(confirmed)
            await _holds(lambda: not subscription.is_consuming)
            await asyncio.to_thread(rabbitmq.start)
            await _holds(lambda: len(confirmed) > before + 100)
            traffic.cancel()
            await asyncio.wait((traffic,))
            await _holds(lambda: confirmed <= set(inbox.event_ids))
            assert subscription.is_consuming
    finally:
        await asyncio.to_thread(rabbitmq.start)


async def test_a_consumer_is_back_when_its_queue_was_deleted(
    rabbitmq: RabbitMQServer, amqp_vhost: str, transport: AmqpTransport
) -> None:
    inbox = Inbox()
    async with transport.subscribe(ARCHIVE, inbox, prefetch=5) as subscription:
        await transport.publish(_message("before"))
        (before,) = await inbox.wait(1)
        await _holds(lambda: subscription.is_consuming)
        with structlog.testing.capture_logs() as logs:
            await asyncio.to_thread(_delete_queue, rabbitmq, amqp_vhost, "tiw.archive")
            await _holds(lambda: {entry["event"] for entry in logs} >= {"consumer_lost", "consumer_started"})
        assert subscription.is_consuming
        await transport.publish(_message("after"))
        _, after = await inbox.wait(2)
        assert after.message.event_id == "after"
        await before.ack()
        assert await after.ack()
        assert subscription.is_consuming


async def test_a_consumer_is_back_when_its_channel_was_closed(transport: AmqpTransport) -> None:
    inbox = Inbox()
    async with transport.subscribe(ARCHIVE, inbox, prefetch=1) as subscription:
        await transport.publish(_message())
        (delivery,) = await inbox.wait(1)
        deliveries = subscription._deliveries
        assert deliveries is not None
        # An unknown delivery tag: the broker closes the channel.
        await deliveries._channel.basic_ack(4711)
        _, again = await inbox.wait(2)
        assert not await delivery.ack()
        assert again.crashes == 1
        assert await again.ack()


async def test_an_operator_may_close_the_connections(
    rabbitmq: RabbitMQServer, amqp_vhost: str, transport: AmqpTransport
) -> None:
    inbox = Inbox()
    async with transport.subscribe(ARCHIVE, inbox, prefetch=1) as subscription:
        await transport.publish(_message("before"))
        (before,) = await inbox.wait(1)

        async def both_are_listed() -> bool:
            return len(await asyncio.to_thread(rabbitmq.connections, amqp_vhost)) == 2

        await eventually(both_are_listed)
        assert await asyncio.to_thread(rabbitmq.close_connections, amqp_vhost) == 2
        await transport.publish(_message("after"))
        await inbox.wait(2)
        assert not await before.ack()
        assert await inbox.deliveries[1].ack()
        await inbox.wait(3)
        assert set(inbox.event_ids) == {"before", "after"}
        # The broker counts a return. But this process lives.
        assert {delivery.crashes for delivery in inbox.deliveries} == {0}
        await _holds(lambda: subscription.is_consuming)


async def test_a_confirm_that_does_not_come_fails_in_time(rabbitmq: RabbitMQServer, url: str) -> None:
    inbox = AckingInbox()
    loop = asyncio.get_running_loop()
    async with _transport(url, confirm_timeout_s=0.5) as transport, transport.subscribe(ARCHIVE, inbox, prefetch=5):
        await _ready(transport)
        await transport.publish(_message("before"))
        with _paused(rabbitmq):
            start_s = loop.time()
            outcomes = await asyncio.gather(
                *(transport.publish(_message(f"{number}")) for number in range(5)), return_exceptions=True
            )
            assert loop.time() - start_s < 2
            assert [type(outcome) for outcome in outcomes] == [NotPublishedError] * 5
            assert not transport.is_ready
        await _publish_in_the_end(transport, _message("after"))
        await _holds(lambda: {"before", "after"} <= set(inbox.event_ids))


async def test_a_confirm_that_does_not_come_fails_nothing_else(rabbitmq: RabbitMQServer, url: str) -> None:
    async with _transport(url, confirm_timeout_s=2) as impatient:
        await _ready(impatient)
        with _paused(rabbitmq):
            first = asyncio.create_task(impatient.publish(_message("first")))
            await asyncio.sleep(1.5)
            second = asyncio.create_task(impatient.publish(_message("second")))
            await asyncio.wait((first,))
            assert isinstance(first.exception(), NotPublishedError)
            assert not impatient.is_ready
        await second


async def test_a_caller_that_is_cancelled_disturbs_no_other(transport: AmqpTransport) -> None:
    cancelled = asyncio.create_task(transport.publish(_message("cancelled")))
    other = asyncio.create_task(transport.publish(_message("other")))
    await asyncio.sleep(0)
    cancelled.cancel()
    await other
    await transport.publish(_message("after"))
    assert cancelled.cancelled()


async def test_it_survives_a_memory_alarm(rabbitmq: RabbitMQServer, url: str) -> None:
    management = f"http://{rabbitmq.host}:{rabbitmq.management_port}"
    async with _transport(url, confirm_timeout_s=0.5, management_url=management) as transport:
        await _ready(transport)
        await transport.publish(_message("before"))
        try:
            await asyncio.to_thread(rabbitmq.ctl, "set_vm_memory_high_watermark", "0.000001")

            async def is_refused() -> bool:
                try:
                    await transport.publish(_message("during"))
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
            await asyncio.to_thread(rabbitmq.ctl, "set_vm_memory_high_watermark", "absolute", "600MB")
        await _publish_in_the_end(transport, _message("after"))


async def test_the_next_address_is_tried_when_one_does_not_answer(url: str, unused_tcp_port: int) -> None:
    async with _transport(f"amqp://a:b@127.0.0.1:{unused_tcp_port}/", url) as transport:
        await _ready(transport)
        await transport.publish(_message())
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
        async with _transport(f"{named}?cafile={certificate}") as transport:
            await _ready(transport)
            await transport.publish(_message())
        for other in (named, f"{named}?cafile={certificate}".replace("localhost", "127.0.0.1")):
            with pytest.raises(BrokerError, match="certificate verify failed"):
                await _transport(other).info()


async def test_what_leads_to_no_queue_is_an_error(transport: AmqpTransport) -> None:
    nothing = Topology(exchanges=(), queues=())
    for exchange in ("", "tiw.nowhere"):
        with pytest.raises(NotPublishedError, match="leads to no queue"):
            await transport._publisher.publish(_message(), exchange=exchange, routing_key="nobody", fallback=nothing)
    await transport.publish(_message())


@pytest.mark.parametrize("deleted", ["tiw.archive.dead", "tiw.retry.200ms", "tiw.orphaned", "tiw.unrecognized"])
async def test_a_queue_that_an_operator_deleted_is_made_anew(
    rabbitmq: RabbitMQServer, amqp_vhost: str, transport: AmqpTransport, deleted: str
) -> None:
    await asyncio.to_thread(_delete_queue, rabbitmq, amqp_vhost, deleted)
    inbox = Inbox()
    await transport.dead_letter("archive", _message())
    await transport.send("nobody", _message())
    await transport.publish(Message(body=b"", event_id="u", routing_key="unrecognized", received_at_us=1))
    async with transport.subscribe(ARCHIVE, inbox, prefetch=1):
        await transport.retry("archive", _message(), delay_s=SHORT_S)
        await inbox.wait(1)
    archive, unrecognized = await transport.inspect(["archive", "unrecognized"])
    assert archive.dead == 1
    assert unrecognized.ready == 1
    assert (await transport.info()).orphaned == 1


@pytest.mark.parametrize("deleted", ["tiw.events", "tiw.home", "tiw.retry.200ms"])
async def test_an_exchange_that_an_operator_deleted_is_made_anew(
    rabbitmq: RabbitMQServer, amqp_vhost: str, transport: AmqpTransport, deleted: str
) -> None:
    await asyncio.to_thread(rabbitmq.api, "DELETE", f"exchanges/{amqp_vhost}/{deleted}")
    inbox = Inbox()
    async with transport.subscribe(ARCHIVE, inbox, prefetch=3):
        await transport.publish(_message("published"))
        await transport.send("archive", _message("sent"))
        await transport.retry("archive", _message("retried"), delay_s=SHORT_S)
        await inbox.wait(3)
    assert set(inbox.event_ids) == {"published", "sent", "retried"}


async def test_a_queue_with_other_arguments_is_named_with_the_remedy(
    rabbitmq: RabbitMQServer, amqp_vhost: str, url: str
) -> None:
    arguments = {"x-queue-type": "quorum", "x-delivery-limit": 7}
    queue = {"durable": True, "arguments": arguments}
    await asyncio.to_thread(rabbitmq.api, "PUT", f"queues/{amqp_vhost}/tiw.archive", queue)
    inbox = Inbox()
    with structlog.testing.capture_logs() as logs:
        async with (
            _transport(url, confirm_timeout_s=1.5) as transport,
            transport.subscribe(ARCHIVE, inbox, prefetch=1),
        ):
            with pytest.raises(NotPublishedError, match=r"tiw\.archive.*x-delivery-limit.*delete_queue"):
                await transport.publish(_message())
            assert not transport.is_ready
            await asyncio.to_thread(_delete_queue, rabbitmq, amqp_vhost, "tiw.archive")
            await _ready(transport)
            await transport.publish(_message())
            await inbox.wait(1)
    conflicts = [entry["error"] for entry in logs if entry["event"] == "topology_conflict"]
    assert len(conflicts) == 2
    assert all("x-delivery-limit" in conflict for conflict in conflicts)


async def test_an_exchange_of_another_kind_is_named(rabbitmq: RabbitMQServer, amqp_vhost: str, url: str) -> None:
    exchange = {"type": "fanout", "durable": True}
    await asyncio.to_thread(rabbitmq.api, "PUT", f"exchanges/{amqp_vhost}/tiw.home", exchange)
    async with _transport(url, confirm_timeout_s=1.0) as transport:
        with pytest.raises(NotPublishedError, match=r"exchange tiw\.home.*type"):
            await transport.publish(_message())


async def test_a_worker_that_is_connected_keeps_its_queue(transport: AmqpTransport) -> None:
    async with transport.subscribe(ARCHIVE, Inbox(), prefetch=1) as subscription:
        await _holds(lambda: subscription.is_consuming)
        with pytest.raises(BrokerError, match="stop it first"):
            await transport.remove("archive", force=False)


async def test_the_management_api_tells_more(rabbitmq: RabbitMQServer, url: str) -> None:
    management = f"http://{rabbitmq.host}:{rabbitmq.management_port}/"
    inbox = Inbox()
    async with (
        _transport(url, management_url=management) as transport,
        transport.subscribe(ARCHIVE, inbox, prefetch=1),
    ):
        await transport.publish(_message())
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
    async with _transport(url, management_url=f"http://127.0.0.1:{unused_tcp_port}") as transport:
        await _ready(transport)
        (state,) = await transport.inspect(["archive"])
        info = await transport.info()
    assert (state.unacked, info.alarms, info.feature_flags_disabled) == (None, None, None)


@pytest.mark.parametrize(
    "headers",
    [
        None,
        {},
        {
            "tiw-event-id": 7,
            "tiw-attempt": "three",
            "tiw-crashes": -1,
            "tiw-received-at-us": 1.5,
            "tiw-reason": bytearray(b"\xff"),
        },
        {"tiw-attempt": True, "tiw-routing-key": [1, 2], "tiw-trace": {"a": None}, "x-delivery-count": "many"},
        {"when": datetime(2026, 1, 1, tzinfo=UTC), "much": Decimal("1.5"), "x-death": [{"count": 1}], "n": None},
    ],
)
async def test_a_foreign_message_is_taken(url: str, transport: AmqpTransport, headers: dict[str, Any] | None) -> None:
    body = b'{"EventType":"Strange"}'
    inbox = Inbox()
    async with _stranger(url) as channel, transport.subscribe(ARCHIVE, inbox, prefetch=1):
        properties = aiormq.spec.Basic.Properties(headers=headers, priority=3, content_type="text/plain")
        await channel.basic_publish(body, exchange="", routing_key="tiw.archive", properties=properties)
        (delivery,) = await inbox.wait(1)
        assert await delivery.ack()
    assert delivery.message.event_id == schemas.decode(body, received_at_us=1).event_id
    assert (delivery.message.attempt, delivery.message.crashes, delivery.crashes) == (1, 0, 0)


@pytest.mark.parametrize(
    ("readable", "unreadable"),
    [
        (b"Strange-name", b"Strange-\xff\xfe\xfd\xfc"),
        (b"text/strange", b"\xff" * 12),
        (b"\0\0\0\0\x07[\xcd\x15", b"\x7f" * 8),
    ],
)
async def test_anybody_may_send_what_cannot_be_decoded(
    url: str, transport: AmqpTransport, readable: bytes, unreadable: bytes
) -> None:
    class Unreadable(aiormq.spec.Basic.Properties):
        def marshal(self) -> bytes:
            whole = super().marshal()
            assert readable in whole
            return whole.replace(readable, unreadable)

    properties = Unreadable(
        headers={"Strange-name": 1},
        content_type="text/strange",
        timestamp=datetime.fromtimestamp(123_456_789, UTC),
        message_id="m",
    )
    inbox = Inbox()
    with structlog.testing.capture_logs() as logs:
        async with _stranger(url) as channel, transport.subscribe(ARCHIVE, inbox, prefetch=2):
            await channel.basic_publish(b"{}", exchange="", routing_key="tiw.archive", properties=properties)
            await inbox.wait(1)
            await transport.publish(_message())
            await inbox.wait(2)
            for delivery in inbox.deliveries:
                assert await delivery.ack()
    assert inbox.messages[0].body == b"{}"
    assert inbox.messages[1] == _message()
    assert "broker_lost" not in [entry["event"] for entry in logs]


async def test_a_retry_carries_nothing_that_the_broker_added(url: str, transport: AmqpTransport) -> None:
    await transport.retry("archive", _message(), delay_s=SHORT_S)
    inbox = Inbox()
    async with transport.subscribe(ARCHIVE, inbox, prefetch=1):
        (delivery,) = await inbox.wait(1)
        await transport.dead_letter("archive", delivery.message)
        assert await delivery.ack()
    async with _stranger(url) as channel:
        dead = await channel.basic_get("tiw.archive.dead", no_ack=True)
    assert dead.header.properties.delivery_mode == 2
    # The broker counts the deliveries of this message too; its history is gone.
    added = {name for name in dead.header.properties.headers or {} if not name.startswith("tiw-")}
    assert added <= {"x-delivery-count"}


@pytest.mark.parametrize("address", ["amqp://guest:guest@broker.example/", "amqp://broker.example", "amqps://10.0.0.7"])
def test_a_guest_is_refused_off_loopback(address: str) -> None:
    with pytest.raises(BrokerError, match="guest"):
        _transport(address)


@pytest.mark.parametrize("address", ["amqp://guest:guest@127.0.0.1/", "amqp://localhost", "amqp://guest@[::1]:5672/v"])
def test_a_guest_is_welcome_on_loopback(address: str) -> None:
    assert not _transport(address).is_ready


@pytest.mark.parametrize("address", ["", "http://u:s3cret@h", "amqp://u:s3cret@", "amqp://u:s3cret@h:port/", "s3cret"])
def test_an_address_that_cannot_be_right_is_refused_without_showing_it(address: str) -> None:
    with pytest.raises(BrokerError) as refusal:
        _transport(address)
    assert "s3cret" not in str(refusal.value)


def test_at_least_one_address_is_needed() -> None:
    with pytest.raises(BrokerError):
        _transport()


async def test_no_password_reaches_a_log(
    rabbitmq: RabbitMQServer, amqp_vhost: str, url: str, unused_tcp_port: int, caplog: pytest.LogCaptureFixture
) -> None:
    password = urllib.parse.urlsplit(url).password
    assert password
    wrong = url.replace(f":{password}@", ":wr0ng@")
    nobody = f"amqp://u:{password}@127.0.0.1:{unused_tcp_port}/"
    with structlog.testing.capture_logs() as logs, caplog.at_level("DEBUG"):
        async with _transport(nobody, wrong, url) as transport, transport.subscribe(ARCHIVE, Inbox(), prefetch=1):
            await _ready(transport)
            await transport.publish(_message())
            await asyncio.to_thread(_delete_queue, rabbitmq, amqp_vhost, "tiw.archive")
            with pytest.raises(BrokerError):
                await _transport(wrong).inspect(["archive"])
    written = repr(logs) + caplog.text
    assert "broker_connected" in written
    assert "broker_not_reached" in written
    assert password not in written
    assert "wr0ng" not in written
