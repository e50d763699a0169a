"""A place in a world where a program runs: started again when it dies."""

import asyncio
from collections.abc import Callable
from random import Random

from chaos.simulation.evidence import Evidence
from chaos.simulation.processes import Process
from chaos.simulation.programs import Program
from chaos.simulation.story import Story
from chaos.simulation.virtual_time import VirtualLoop

#: How long a member has to end in good order.
END_S = 60.0


class Member:
    """One program and its incarnations. `process` is the one of now; `gone` are those that died."""

    def __init__(
        self,
        name: str,
        program: Program,
        *,
        loop: VirtualLoop,
        story: Story,
        evidence: Evidence,
        rng: Random,
        on_death: Callable[[], None],
    ) -> None:
        self.name = name
        self._program = program
        self._loop = loop
        self._story = story
        self._evidence = evidence
        self._rng = rng
        self._on_death = on_death
        self._incarnation = 0
        self._stopping = asyncio.Event()
        self._main: asyncio.Task[None] | None = None
        self._is_over = False
        self.process: Process | None = None
        self.gone: list[Process] = []

    def start(self) -> None:
        """Start the program anew."""
        if self._is_over:
            return
        self._incarnation += 1
        self._stopping = asyncio.Event()
        self.process = Process(f"{self.name}.{self._incarnation}", self._loop, tell=self._story.tell)
        self.process.on_death.append(self._died)
        self._story.tell(self.process.name, "started")
        self._main = self.process.spawn(self._program.run(self.process, self._stopping), name=self.process.name)

    async def end(self) -> None:
        """Let the program end in good order, and look at what it leaves behind."""
        process, main = self.process, self._main
        if process is None or main is None:
            return
        self._stopping.set()
        await asyncio.wait([main], timeout=END_S)
        if process.is_dead:
            return
        if not main.done():
            self._evidence.failed(process.name, f"did not end within {END_S:g} s")
        elif main.exception() is not None:
            self._evidence.failed(process.name, f"ended with {main.exception()!r}")
        left = sorted(task.get_name() for task in process.tasks if not task.done())
        if left:
            self._evidence.failed(process.name, f"left tasks behind: {', '.join(left)}")
        self._story.tell(process.name, "ended")
        # It is gone: what its timers would still do is not done.
        process.on_death.clear()
        process.crash("after its end")
        self.gone.append(process)
        self.process = None

    async def restart(self) -> None:
        """End in good order, then start again."""
        await self.end()
        if self.process is None:
            self.start()

    def close(self) -> None:
        """Start nothing again."""
        self._is_over = True

    def _died(self) -> None:
        if self.process is not None:
            self.gone.append(self.process)
            self.process = None
            self._on_death()
        self._loop.after(self._rng.choice((0.1, 2.0, 20.0)) * self._rng.uniform(0.5, 1.0), self._start_again)

    def _start_again(self) -> None:
        if self.process is None:
            self.start()
