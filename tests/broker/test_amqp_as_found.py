"""RabbitMQ as companies run it: with policies of theirs, and users who may do little."""

import asyncio
import secrets
import urllib.parse
from collections.abc import Iterator

import pytest

from broker import NotPublishedError
from tests.broker.amqp_broker import message, open_amqp, wait_ready
from tests.broker.consumers import ARCHIVE
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
