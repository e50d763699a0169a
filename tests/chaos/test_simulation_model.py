"""Hypothesis drives a world: what to send, what to break and when; at the end every promise must hold.

The code is the real one, from ingest to the store, with its spool; time is virtual. A failing example is shrunk to
the few steps that it takes.
"""

import asyncio
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from random import Random

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec import structs

from chaos.simulation.consumers import Manner
from chaos.simulation.database import make_template
from chaos.simulation.network import Weather
from chaos.simulation.plan import INGEST_POINTS, WORKER_POINTS, draw_plan
from chaos.simulation.programs import Member
from chaos.simulation.vendor import KEY, SDK_APP_ID, Vendor
from chaos.simulation.world import World
from simulator import Callback, ClassKind, play_class
from tests.profiles import examples

KEYS = (KEY, "the second key of simulated worlds", "the third key of simulated worlds")

#: The file of keys is looked at every second.
NOTICED_S = 2.5


@cache
def template() -> Path:
    path = Path(tempfile.mkdtemp(prefix="tiw-model-")) / "template.db"
    make_template(path)
    return path


class Pipeline(RuleBasedStateMachine):
    """Every rule is a step of the world; between two of them no time passes unless `time_passes`."""

    @initialize(ingests=st.integers(1, 2), workers=st.integers(1, 2), is_one_host=st.booleans())
    def begin(self, ingests: int, workers: int, is_one_host: bool) -> None:
        plan = structs.replace(
            draw_plan(0),
            ingests=ingests,
            workers=workers,
            lease_s=30.0,
            is_one_host=is_one_host,
            has_splitted_consumers=False,
            manners=(Manner.FINE,),
            replays=True,
            weather=Weather(),
            faults=(),
        )
        self.folder = tempfile.TemporaryDirectory(prefix="tiw-model-")
        self.world = World(plan, Path(self.folder.name), template())
        self.vendor = Vendor(plan, self.world.ingest_address, self.world.notes, self.world.story)
        self.callbacks = self._callbacks()
        self.sent: list[Callback] = []
        self.sending: list[asyncio.Task[int | str]] = []
        self.keys = [KEY]
        self.world.handlers.manner = self._manner  # type: ignore[method-assign]  # the example decides
        self.troubled: dict[tuple[str, str], Manner] = {}
        self._do(self.world.begin)
        self._pass(1.0)

    @rule()
    def a_callback_is_sent(self) -> None:
        self._send(self.callbacks.pop())

    @rule(manner=st.sampled_from([manner for manner in Manner if manner is not Manner.FINE]))
    def a_callback_that_gives_trouble_is_sent(self, manner: Manner) -> None:
        callback = self.callbacks.pop()
        self.troubled["single", callback.event_id] = manner
        self._send(callback)

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def a_callback_is_sent_again(self, data: st.DataObject) -> None:
        self._send(data.draw(st.sampled_from(self.sent)))

    @rule(seconds=st.sampled_from([0.001, 0.05, 0.5, 3.0, 12.0, 60.0]))
    def time_passes(self, seconds: float) -> None:
        self._pass(seconds)

    @rule()
    def the_broker_crashes(self) -> None:
        if self.world.broker.is_up:
            self._do(self.world.broker.go_down)

    @rule()
    def the_broker_comes_back(self) -> None:
        if not self.world.broker.is_up:
            self._do(self.world.broker.come_up)

    @rule(blocks=st.booleans())
    def the_broker_blocks_or_not(self, blocks: bool) -> None:
        self._do(self.world.broker.block if blocks else self.world.broker.unblock)

    @rule(share=st.sampled_from([0.0, 0.2]))
    def confirms_and_answers_are_lost(self, share: float) -> None:
        self.world.network.weather = Weather(lost_confirms=share / 4, lost_answers=share, slow=share, slow_s=4.0)

    @rule()
    def connections_are_lost(self) -> None:
        self._do(self.world.broker.lose_sessions)

    @rule(fails=st.booleans())
    def the_disks_fail_or_not(self, fails: bool) -> None:
        self.world.disk.fails = fails

    @rule(is_away=st.booleans())
    def the_store_is_away_or_not(self, is_away: bool) -> None:
        self.world.notes.disturbed("store away")
        self._do(self.world.database.go_away if is_away else self.world.database.come_back)

    @rule(which=st.integers(0, 3), point=st.sampled_from(INGEST_POINTS))
    def an_ingest_node_is_to_crash_at(self, which: int, point: str) -> None:
        self._doom(self.world.ingests, which, point)

    @rule(which=st.integers(0, 3), point=st.sampled_from(WORKER_POINTS))
    def a_worker_is_to_crash_at(self, which: int, point: str) -> None:
        self._doom(self.world.workers, which, point)

    @rule(which=st.integers(0, 3))
    def a_process_is_killed(self, which: int) -> None:
        members = [*self.world.ingests, *self.world.workers]
        process = members[which % len(members)].process
        if process is not None:
            self._do(lambda: process.crash("killed"))

    @rule(which=st.integers(0, 3))
    def a_process_is_stopped_for_a_while(self, which: int) -> None:
        members = [*self.world.ingests, *self.world.workers]
        process = members[which % len(members)].process
        if process is not None:
            self.world.notes.disturbed("stop")
            self._do(process.stop)
            self._pass(15.0)
            self._do(process.go_on)

    @rule(which=st.integers(0, 3))
    def a_process_is_restarted(self, which: int) -> None:
        members = [*self.world.ingests, *self.world.workers]
        with self.world.active():
            self.world.run_until(members[which % len(members)].restart())

    @rule(keys=st.lists(st.sampled_from(KEYS), min_size=1, max_size=2, unique=True))
    def keys_are_rotated(self, keys: list[str]) -> None:
        """Let the file change, and see that who signs with which key is answered accordingly once it was noticed."""
        under_way = [task for task in self.sending if not task.done()]
        if under_way and not set(self.keys) <= set(keys):
            # What was signed with a key that is taken away would rightly be refused.
            with self.world.active():
                self.world.run_until(asyncio.wait(under_way))
        self.world.set_keys(*keys)
        self.keys = keys
        self._pass(NOTICED_S)

    @rule(key=st.sampled_from(KEYS))
    def somebody_signs_with(self, key: str) -> None:
        callback = self.callbacks.pop()
        if key in self.keys:
            self._send(callback, key)
        else:
            self.world.notes.sends(callback, forged="with a key that is not in use")
            self._start(callback, key)
            # Until it has given up: a rotation would make its repetitions authentic.
            with self.world.active():
                self.world.run_until(asyncio.wait(self.sending[-1:]))

    @invariant()
    def nothing_has_gone_wrong_so_far(self) -> None:
        if hasattr(self, "world"):
            assert self.world.notes.errors == []

    def teardown(self) -> None:
        """End all troubles, let everything come to rest, and judge."""
        if not hasattr(self, "world"):
            return
        try:
            with self.world.active():
                self.world.faults().all_over()
                self.world.network.weather = Weather()
                if self.sending:
                    self.world.run_until(self._settled())
                found = self.world.run_until(self.world.end())
                self.world.close()
            assert found == []
        finally:
            self.folder.cleanup()

    async def _settled(self) -> None:
        await asyncio.wait(self.sending)

    def _send(self, callback: Callback, key: str | None = None) -> None:
        self.sent.append(callback)
        self.world.notes.sends(callback)
        self._start(callback, key or self.keys[0])

    def _start(self, callback: Callback, key: str) -> None:
        self._do(lambda: self.sending.append(self.world.loop.create_task(self.vendor.send(callback, 0.0, key))))

    def _do(self, act: Callable[[], object]) -> None:
        async def do() -> None:
            act()

        with self.world.active():
            self.world.run_until(do())

    def _pass(self, seconds: float) -> None:
        with self.world.active():
            self.world.run_until(asyncio.sleep(seconds))

    def _doom(self, members: list[Member], which: int, point: str) -> None:
        process = members[which % len(members)].process
        if process is not None:
            process.crash_at = point

    def _manner(self, consumer: str, event_id: str) -> Manner:
        if self.world.handlers.is_mended:
            return Manner.FINE
        return self.troubled.get((consumer, event_id), Manner.FINE)

    def _callbacks(self) -> list[Callback]:
        rng = Random("callbacks of the model")
        kinds = (ClassKind.NORMAL, ClassKind.LONG_PAUSE_FORCE_STOPPED, ClassKind.FAILED, ClassKind.OTHER_FAMILIES)
        return [
            callback
            for number in range(40)
            for callback in play_class(kinds[number % 4], rng, sdk_app_id=SDK_APP_ID, room_id=10_000 + number)
        ]


TestPipeline = Pipeline.TestCase
TestPipeline.settings = examples(quick=6, thorough=300, steps=15)
