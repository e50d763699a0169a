"""The sender as it really behaves: 10 s for an answer, 5 more tries 5 s apart, and only 200 counts."""

import asyncio
import time
from http import HTTPStatus
from random import Random

from chaos.simulation.door import Door
from chaos.simulation.evidence import Evidence
from chaos.simulation.plan import Plan
from chaos.simulation.story import Story
from simulator import Callback, ClassKind, Patience, Send, render, schedule, sign

SDK_APP_ID = 1_400_000_001
KEY = "the key of simulated worlds"
FORGED_KEY = "a key that nobody was given"

_SIGNATURE_LIFETIME_S = 3600
_KINDS = (
    ClassKind.NORMAL,
    ClassKind.LONG_PAUSE_FORCE_STOPPED,
    ClassKind.FAILED,
    ClassKind.OTHER_FAMILIES,
    ClassKind.LONG_PAUSE_RESUMED,
    ClassKind.ERROR_ONLY,
)
_DUPLICATES = 0.2
_DISORDER = 0.4


class Vendor:
    """Plays the classes of a plan, and some callbacks that somebody forged."""

    def __init__(self, plan: Plan, door: Door, evidence: Evidence, story: Story) -> None:
        self._plan = plan
        self._door = door
        self._evidence = evidence
        self._story = story
        self._patience = Patience()

    async def play(self) -> None:
        """Send everything; return when the last callback is accepted or given up."""
        rng = Random(f"vendor {self._plan.seed}")
        sends = [send.callback for send in self._schedule(self._plan.classes, self._plan.seed)]
        begins_s = sorted(rng.uniform(0, self._plan.sending_s) for _ in sends)
        forged = [send.callback for send in self._schedule(self._plan.forged, self._plan.seed + 1_000_000_007)]
        async with asyncio.TaskGroup() as group:
            for begin_s, callback in zip(begins_s, sends, strict=True):
                self._evidence.sent[callback.event_id] = callback
                group.create_task(self.send(callback, begin_s, KEY))
            for callback in forged:
                self._evidence.forged.add(callback.event_id)
                group.create_task(self.send(callback, rng.uniform(0, self._plan.sending_s), FORGED_KEY))

    def _schedule(self, classes: int, seed: int) -> list[Send]:
        return list(
            schedule(
                classes=classes,
                kinds=_KINDS,
                sdk_app_id=SDK_APP_ID,
                seed=seed,
                duplicates=_DUPLICATES,
                disorder=_DISORDER,
            )
        )

    async def send(self, callback: Callback, begin_s: float, key: str) -> int | str:
        """Send one callback from `begin_s` seconds on; return what the last try came to."""
        await asyncio.sleep(begin_s)
        status: int | str = ""
        for _ in range(1 + self._patience.retries):
            status = await self._try(callback, key)
            self._story.tell("vendor", str(status), callback.event_type, callback.event_id[:8])
            if status == HTTPStatus.OK:
                return status
            await asyncio.sleep(self._patience.retry_delay_s)
        if key == KEY:
            self._story.tell("vendor", "gave up", callback.event_id[:8])
            self._evidence.given_up.add(callback.event_id)
        return status

    async def _try(self, callback: Callback, key: str) -> int | str:
        body = render(callback, sign(key, int(time.time()) + _SIGNATURE_LIFETIME_S))
        try:
            async with asyncio.timeout(self._patience.timeout_s):
                return await self._door.post(callback.event_id, body)
        except TimeoutError:
            return "time-out"
        except ConnectionError as error:
            return str(error)
