"""`tiw up`: the whole pipeline until Ctrl-C."""

import argparse
import os
import shlex

from ingest import KeyRing
from telemetry import configure_logging
from tiw.keys import keys_file, open_keys
from tiw.pipeline import Pipeline, run_pipeline
from tiw.process import settle, stop_requests, stopped_or_failed
from tiw.settings import DEFAULT_ADMIN, Address, Settings, UnixAddress

_EXAMPLE = (
    '{"EventType":"OnlineRecordStarted","Timestamp":\'$NOW\',"SdkAppId":%d,'
    '"EventData":{"TaskId":"hello","RoomId":1,"RecordUserId":"tic_record_user_1_01"}%s}'
)


async def up(settings: Settings, args: argparse.Namespace) -> int:
    """Run until SIGINT or SIGTERM, then finish what is here."""
    del args
    configure_logging(settings.log_format)
    stopped = await stop_requests()
    keys = open_keys(settings)
    admin = settings.admin or DEFAULT_ADMIN
    async with run_pipeline(settings, keys=keys, admin=admin, environ=os.environ) as pipeline:
        _greet(settings, keys, admin, pipeline)
        settle()
        await stopped_or_failed(stopped, pipeline.failure)
    return 0


def _greet(settings: Settings, keys: KeyRing, admin: Address, pipeline: Pipeline) -> None:
    """Say where things are, and how to send a first callback."""
    if isinstance(settings.http, UnixAddress):
        # Who sends through the socket may name any host.
        address, through = f"http://localhost{pipeline.path}", f"--unix-socket {shlex.quote(settings.http.path)} "
        place = f"{settings.http}  POST {pipeline.path}"
    else:
        address = f"http://{Address(host=settings.http.host, port=pipeline.http_port)}{pipeline.path}"
        through, place = "", address
    health = f"http://{Address(host=admin.host, port=pipeline.admin_port or admin.port)}/readyz"
    print(f"callbacks  {place}")
    print(f"health     {health}")
    print(f"data       {settings.data_dir}")
    print("\nSend a callback:\n")
    print(_curl(settings, keys, through + address))
    print("\nLook at it: tiw recordings list    Stop: Ctrl-C\n", flush=True)


def _curl(settings: Settings, keys: KeyRing, address: str) -> str:
    """Return lines for a shell. The Sign is computed there: printed here, it would be one more place to find it."""
    app = next(iter(keys.current), None)
    if app is None:
        unsigned = next(iter(sorted(settings.allow_unsigned)), 0)
        return f"NOW=$(date +%s); curl -sS {address} -d '{_EXAMPLE % (unsigned, '')}'"
    if settings.callback_keys is not None:
        key = "KEY='the callback key'"
    else:
        read = f"import json; print(json.load(open('{keys_file(settings)}'))['{app}'][0])"
        key = f'KEY=$(python3 -c "{read}")'
    sign = ',"ExpireTime":\'$NOW\',"Sign":"\'$(printf %s "$KEY$NOW" | md5sum | cut -c1-32)\'"'
    return f"{key}; NOW=$(date +%s)\ncurl -sS {address} -d '{_EXAMPLE % (app, sign)}'"
