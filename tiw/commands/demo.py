"""`tiw demo`: the main job, with accounting, in a folder that is gone afterwards."""

import argparse
import asyncio
import logging
import os
import secrets
import tempfile
import time
from pathlib import Path

from ingest import GENERATED_SDK_APP_ID, KeyRing
from simulator import SimulationConfig, show_progress, simulate
from store import Store, count_events, list_recordings, wait_for_schema
from telemetry import configure_logging
from tiw.commands.recordings import print_recordings
from tiw.pipeline import run_pipeline
from tiw.settings import Address, Settings

#: Longest wait for the consumers without a single further event.
_STILL_S = 30.0


async def demo(settings: Settings, args: argparse.Namespace) -> int:
    """Play classes through real HTTP; exit code 0 only if everything sent was accepted and recorded."""
    configure_logging(settings.log_format, level=logging.ERROR)
    key = secrets.token_hex(16)
    with tempfile.TemporaryDirectory(prefix="tiw-demo-") as folder:
        own = Settings(
            http=Address(host="127.0.0.1", port=0),
            database_url=f"sqlite+aiosqlite:///{folder}/store.db",
            data_dir=Path(folder),
            console=None,
        )
        keys = KeyRing({GENERATED_SDK_APP_ID: (key,)})
        async with run_pipeline(own, keys=keys, admin=None, environ=os.environ) as pipeline:
            address = f"http://127.0.0.1:{pipeline.http_port}{pipeline.path}"
            print(f"The pipeline listens on {address}; {args.classes} classes are played to it.", flush=True)
            config = SimulationConfig(
                url=address,
                sdk_app_id=GENERATED_SDK_APP_ID,
                key=key,
                classes=args.classes,
                seed=args.seed,
                duplicates=0.3,
                disorder=0.3,
            )
            with show_progress() as on_progress:
                report = await simulate(config, on_progress=on_progress)
            await wait_for_schema(pipeline.store, poll_s=0.1)  # on a busy machine the pipeline does not wait for it
            print(f"{report.duplicates} callbacks were sent twice, {report.retries} tries were repeated.")
            recorded = await _recorded(pipeline.store, report.accepted)
            print_recordings(await list_recordings(pipeline.store, limit=0), empty="No recordings.")
    lost = report.accepted - recorded
    print(f"sent {report.sent} accepted {report.accepted} recorded {recorded} lost {lost}")
    return 0 if report.sent == report.accepted == recorded else 1


async def _recorded(store: Store, expected: int) -> int:
    """Return how many events are in the store, once all are or none has come for a while."""
    recorded, changed_s = 0, time.monotonic()
    while recorded < expected and time.monotonic() - changed_s < _STILL_S:
        await asyncio.sleep(0.05)
        now = await count_events(store)
        if now != recorded:
            recorded, changed_s = now, time.monotonic()
    return recorded
