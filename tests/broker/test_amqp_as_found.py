"""RabbitMQ as companies run it: with policies of theirs, and users who may do little."""

import asyncio
import re
import secrets
import urllib.parse
from collections.abc import Iterator

import pytest

from broker import NotPublishedError
from tests.broker.amqp_broker import foreign_channel, message, open_amqp, publish_in_the_end, wait_ready
from tests.broker.consumers import ARCHIVE, SHORT_S
from tests.broker.inbox import AckingInbox, eventually
from tests.servers.rabbitmq import RabbitMQServer


@pytest.fixture
def restricted(rabbitmq: RabbitMQServer, amqp_vhost: str) -> Iterator[str]:
    """Give the address for a user who may read and write everything, and declare nothing."""
    user, password = f"u{secrets.token_hex(4)}", secrets.token_hex(8)
    rabbitmq.api("PUT", f"users/{user}", {"password": password, "tags": ""})
    rabbitmq.api("PUT", f"permissions/{amqp_vhost}/{user}", {"configure": "^$", "write": ".*", "read": ".*"})
    yield f"amqp://{user}:{password}@{rabbitmq.host}:{rabbitmq.port}/{urllib.parse.quote(amqp_vhost, safe='')}"
    rabbitmq.api("DELETE", f"users/{user}")


async def test_a_user_who_may_declare_nothing_works_with_what_is_there(
    rabbitmq: RabbitMQServer, amqp_vhost: str, restricted: str
) -> None:
    async with open_amqp(rabbitmq.url(amqp_vhost)) as owner:
        await wait_ready(owner)
    inbox = AckingInbox()
    async with open_amqp(restricted) as transport, transport.subscribe(ARCHIVE, inbox, prefetch=1):
        await wait_ready(transport)
        await transport.publish(message())
        await inbox.wait(1)


async def test_a_user_who_may_declare_nothing_is_refused_in_the_brokers_words_where_nothing_is_there(
    restricted: str,
) -> None:
    async with open_amqp(restricted, confirm_timeout_s=1.0) as transport:
        async with asyncio.timeout(20):
            with pytest.raises(NotPublishedError, match=r"access to exchange .* refused for user"):
                await transport.publish(message())


@pytest.mark.parametrize(
    ("rights", "refusals"),
    [
        ({"configure": "", "write": r"^(tiw\..*|amq\.default)$", "read": r"^tiw\..*"}, []),
        ({"configure": ".*", "write": r"^tiw\..*", "read": ".*"}, ["write access to exchange 'amq.default'"]),
        (
            {"configure": ".*", "write": "", "read": ""},
            ["access to exchange 'tiw.events'", "access to exchange 'amq.default'", "access to queue 'tiw.orphaned'"],
        ),
    ],
    ids=["enough", "no dead letters", "nothing"],
)
async def test_what_our_user_may_not_do_is_found_without_doing_it(
    rabbitmq: RabbitMQServer, amqp_vhost: str, restricted: str, rights: dict[str, str], refusals: list[str]
) -> None:
    async with open_amqp(rabbitmq.url(amqp_vhost)) as owner:
        await wait_ready(owner)
        await owner.send("nobody", message())
        user = urllib.parse.urlsplit(restricted).username
        rabbitmq.api("PUT", f"permissions/{amqp_vhost}/{user}", rights)
        async with open_amqp(restricted) as transport:
            info = await transport.info()
        assert len(info.refusals) == len(refusals)
        for said, expected in zip(info.refusals, refusals, strict=True):
            assert expected.removeprefix("write ") in said

        async def nothing_came_or_went() -> bool:
            info = await owner.info()
            states = await owner.inspect(["archive", "finished", "unrecognized"])
            return (info.orphaned, sum(state.ready for state in states)) == (1, 0)

        await eventually(nothing_came_or_went)


@pytest.mark.parametrize(
    ("definition", "settings"),
    [
        ({"message-ttl": 60000}, "message-ttl = 60000"),
        ({"max-length": 10, "overflow": "drop-head"}, "max-length = 10, overflow = drop-head"),
        ({"expires": 3_600_000}, "expires = 3600000"),
    ],
    ids=["expires messages", "drops messages", "expires queues"],
)
async def test_a_policy_that_may_lose_events_is_named_and_another_is_not(
    rabbitmq: RabbitMQServer, amqp_vhost: str, definition: dict[str, object], settings: str
) -> None:
    async with open_amqp(
        rabbitmq.url(amqp_vhost), management_url=f"http://{rabbitmq.host}:{rabbitmq.management_port}"
    ) as transport:
        await wait_ready(transport)
        harmless = {"pattern": ".*", "apply-to": "queues", "definition": {"queue-leader-locator": "balanced"}}
        rabbitmq.api("PUT", f"policies/{amqp_vhost}/spread", harmless)
        await eventually(lambda: _has_policy(rabbitmq, amqp_vhost, "spread"))
        assert (await transport.info()).harmful_policies == ()
        harmful = {"pattern": r"^tiw\.", "apply-to": "queues", "definition": definition, "priority": 9}
        rabbitmq.api("PUT", f"policies/{amqp_vhost}/tidy", harmful)
        await eventually(lambda: _has_policy(rabbitmq, amqp_vhost, "tidy"))
        (said,) = (await transport.info()).harmful_policies or ()
    assert said.startswith(f"tidy sets {settings} on ")
    assert "queues (tiw." in said


async def _has_policy(rabbitmq: RabbitMQServer, vhost: str, name: str) -> bool:
    queues = await asyncio.to_thread(rabbitmq.api, "GET", f"queues/{vhost}?columns=name,policy")
    return bool(queues) and all(queue.get("policy") == name for queue in queues)


async def _policy(rabbitmq: RabbitMQServer, vhost: str, kind: str, queue: str, definition: dict[str, object]) -> None:
    """Set a policy, and return once the queue has it."""
    policy = {"pattern": f"^{queue}$", "apply-to": "queues", "definition": definition}
    await asyncio.to_thread(rabbitmq.api, "PUT", f"{kind}/{vhost}/tidy", policy)

    async def holds() -> bool:
        columns = "effective_policy_definition"
        found = await asyncio.to_thread(rabbitmq.api, "GET", f"queues/{vhost}/{queue}?columns={columns}")
        # Before it has looked, the broker gives an empty list.
        return isinstance(found, dict) and found.get(columns) == definition

    await eventually(holds)


async def test_what_a_policy_makes_expire_is_with_the_dead_letters_and_says_so(
    rabbitmq: RabbitMQServer, amqp_vhost: str
) -> None:
    inbox = AckingInbox()
    async with open_amqp(rabbitmq.url(amqp_vhost)) as transport:
        await wait_ready(transport)
        await _policy(rabbitmq, amqp_vhost, "policies", "tiw.archive", {"message-ttl": 100})
        async with transport.subscribe(ARCHIVE, inbox, prefetch=1, dead=True):
            # What has waited for a retry was taken out of a queue before, and it is the last time that counts.
            await transport.retry("archive", message(), delay_s=SHORT_S)
            await transport.dead_letter("archive", message("given up by its consumer"))
            await inbox.wait(2)
    assert {delivery.message.event_id: delivery.taken_out for delivery in inbox.deliveries} == {
        message().event_id: "expired",
        "given up by its consumer": "",
    }


async def test_what_a_consumer_gets_after_a_retry_was_taken_out_by_nobody(
    rabbitmq: RabbitMQServer, amqp_vhost: str
) -> None:
    inbox = AckingInbox()
    async with open_amqp(rabbitmq.url(amqp_vhost)) as transport, transport.subscribe(ARCHIVE, inbox, prefetch=1):
        await wait_ready(transport)
        await transport.retry("archive", message(), delay_s=SHORT_S)
        (delivery,) = await inbox.wait(1)
    assert delivery.taken_out == ""


async def test_what_a_policy_lets_come_back_too_seldom_is_a_dead_letter(
    rabbitmq: RabbitMQServer, amqp_vhost: str
) -> None:
    url = rabbitmq.url(amqp_vhost)
    inbox = AckingInbox()
    async with open_amqp(url) as transport:
        await wait_ready(transport)
        await _policy(rabbitmq, amqp_vhost, "operator-policies", "tiw.archive", {"delivery-limit": 1})
        await transport.send("archive", message())
        for _ in range(2):
            async with foreign_channel(url) as channel:
                got = await channel.basic_get("tiw.archive")
                assert got.body == message().body
        async with transport.subscribe(ARCHIVE, inbox, prefetch=1, dead=True):
            (delivery,) = await inbox.wait(1)
    assert delivery.taken_out == "delivery_limit"


async def test_what_a_policy_finds_too_much_is_refused_while_it_can_still_be_kept_elsewhere(
    rabbitmq: RabbitMQServer, amqp_vhost: str
) -> None:
    async with open_amqp(rabbitmq.url(amqp_vhost), confirm_timeout_s=5.0) as transport:
        await wait_ready(transport)
        await _policy(rabbitmq, amqp_vhost, "policies", "tiw.archive", {"max-length": 3})
        taken = 0

        async def send_many() -> None:
            nonlocal taken
            for _ in range(20):
                await transport.send("archive", message())
                taken += 1

        with pytest.raises(NotPublishedError, match="the broker refused the message"):
            await send_many()

        async def all_are_there() -> bool:
            (state,) = await transport.inspect(["archive"])
            return state.ready == taken

        await eventually(all_are_there)
        assert taken >= 3


async def test_what_a_policy_drops_is_with_the_dead_letters_and_says_so(
    rabbitmq: RabbitMQServer, amqp_vhost: str
) -> None:
    inbox = AckingInbox()
    async with open_amqp(rabbitmq.url(amqp_vhost)) as transport:
        await wait_ready(transport)
        # This outranks our own argument.
        await _policy(rabbitmq, amqp_vhost, "policies", "tiw.archive", {"max-length": 3, "overflow": "drop-head"})
        for number in range(20):
            await transport.send("archive", message(str(number)))
        async with transport.subscribe(ARCHIVE, inbox, prefetch=50, dead=True):
            dropped = await inbox.wait(17)
        (archive,) = await transport.inspect(["archive"])
    assert {delivery.taken_out for delivery in dropped} == {"maxlen"}
    assert (len(dropped), archive.ready) == (17, 3)


@pytest.mark.parametrize(
    ("limit", "value", "words"),
    [
        ("max-queues", 3, r"the broker refuses queue tiw\..*queue limit in vhost .* is reached"),
        ("max-connections", 0, r"connection.* limit"),
    ],
)
async def test_a_limit_of_the_virtual_host_is_told_in_the_brokers_words(
    rabbitmq: RabbitMQServer, amqp_vhost: str, limit: str, value: int, words: str
) -> None:
    rabbitmq.api("PUT", f"vhost-limits/{amqp_vhost}/{limit}", {"value": value})
    async with open_amqp(rabbitmq.url(amqp_vhost), confirm_timeout_s=0.5) as transport:
        reasons: list[str] = []

        async def told() -> bool:
            with pytest.raises(NotPublishedError) as refused:
                await transport.publish(message())
            reasons.append(str(refused.value))
            return re.search(words, reasons[-1]) is not None

        try:
            await eventually(told)
        except TimeoutError:
            pytest.fail(f"it was said: {set(reasons)}")
        rabbitmq.api("DELETE", f"vhost-limits/{amqp_vhost}/{limit}")
        await publish_in_the_end(transport, message())
