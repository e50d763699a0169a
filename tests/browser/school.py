"""What happened at a school: classes as the vendor tells of them, one for each thing that a page shows."""

import json
import time
from random import Random
from typing import Any

from msgspec import Struct, structs

from simulator import Bucket, ClassKind, SimulatedClass, make_class, render
from tests.end_to_end.sending import APP

HOUR_S = 3600
DAY_S = 24 * HOUR_S


class School(Struct, frozen=True, kw_only=True):
    """Classes of the last days."""

    #: Yesterday, one teacher, ended as usual.
    normal: SimulatedClass
    #: Failed within two minutes.
    failed: SimulatedClass
    #: Paused for too long, and stopped for that.
    paused: SimulatedClass
    #: Runs, and its pause has lasted for long.
    pausing: SimulatedClass
    #: Runs.
    running: SimulatedClass
    #: Two streams with pauses left out; its files are archived.
    archived: SimulatedClass
    #: An older class with slides and a whiteboard push, which nobody understands.
    other: SimulatedClass

    @property
    def by_name(self) -> dict[str, SimulatedClass]:
        return {name: getattr(self, name) for name in self.__struct_fields__}

    @property
    def classes(self) -> list[SimulatedClass]:
        return [*self.by_name.values()]


def make_school(bucket: Bucket) -> School:
    """Return the classes of a school; the files of the archived one lie in `bucket`."""
    now = int(time.time())

    def cls(kind: ClassKind, seed: int, ago_s: int, **more: Any) -> SimulatedClass:
        return make_class(kind, Random(seed), sdk_app_id=APP, room_id=880_520 + seed, started_at=now - ago_s, **more)

    pausing = cls(ClassKind.LONG_PAUSE_FORCE_STOPPED, 4, 3 * HOUR_S)
    running = cls(ClassKind.NORMAL, 5, 600, length_s=2 * HOUR_S)
    return School(
        normal=cls(ClassKind.NORMAL, 1, DAY_S, length_s=HOUR_S),
        failed=cls(ClassKind.FAILED, 2, 5 * HOUR_S),
        paused=cls(ClassKind.LONG_PAUSE_FORCE_STOPPED, 3, 2 * DAY_S),
        pausing=structs.replace(pausing, callbacks=pausing.callbacks[:2]),
        running=structs.replace(running, callbacks=running.callbacks[:1]),
        archived=cls(ClassKind.JOINED_VIDEOS, 6, DAY_S + 5 * HOUR_S, bucket=bucket),
        other=cls(ClassKind.OTHER_FAMILIES, 7, 2 * DAY_S + HOUR_S, length_s=1800),
    )


def contents(cls: SimulatedClass) -> list[dict[str, Any]]:
    """Return the callbacks of a class, not signed yet."""
    return [json.loads(render(callback)) for callback in cls.callbacks]
