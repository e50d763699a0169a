"""`tiw send-test`: a callback that says of itself that it is a test, to all consumers or to one."""

import argparse
import time

from msgspec import Struct

from store import check_schema, known_apps
from tiw.doctor import require_consumer
from tiw.opening import open_store, open_transport
from tiw.output import print_fields, print_json, require_broker, require_queue
from tiw.settings import FailedError, Settings, UsageError
from workers import EXAMPLE_APP, EXAMPLE_ROOM, is_test_task_id, make_test, new_test_task_id


class SentTestCallback(Struct, frozen=True, kw_only=True):
    """A test that was sent; `consumer`: to this one alone."""

    event_id: str
    event_type: str
    sdk_app_id: int
    room_id: int
    task_id: str
    consumer: str | None


async def send_test(settings: Settings, args: argparse.Namespace) -> int:
    """Send one as if it was just accepted, and print by which names it is found again."""
    task = args.task or new_test_task_id()
    if not is_test_task_id(task):
        raise UsageError("--task is the TaskId of a test that was sent before: it begins with `test-`")
    async with open_store(settings) as store:
        await check_schema(store)
        takes = None if args.consumer is None else await require_consumer(store, args.consumer)
        app = min(await known_apps(store), default=EXAMPLE_APP) if args.app is None else args.app
    room = EXAMPLE_ROOM if args.room is None else args.room
    message = make_test(args.kind, app=app, room=room, task=task, now_s=time.time())
    if takes is not None and message.routing_key not in takes:
        raise FailedError(
            f"consumer {args.consumer!r} does not take {message.routing_key}: it takes {', '.join(takes)}"
        )
    async with open_transport(settings) as transport:
        await require_broker(transport)
        if args.consumer is None:
            await transport.publish(message)
        else:
            await require_queue(transport, args.consumer)
            await transport.send(args.consumer, message)
    sent = SentTestCallback(
        event_id=message.event_id,
        event_type=message.routing_key,
        sdk_app_id=app,
        room_id=room,
        task_id=task,
        consumer=args.consumer,
    )
    if args.json:
        print_json(sent)
    else:
        print_fields(
            {
                "event": sent.event_type,
                "recording": task,
                "application": app,
                "room": room,
                "sent to": args.consumer or "all consumers",
                "to see it": f"tiw events show {sent.event_id}",
            },
            title=sent.event_id,
        )
    return 0
