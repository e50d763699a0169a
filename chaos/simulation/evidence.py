"""What was seen of a world from outside: what was sent and answered, and which effects there were."""

from collections import Counter

from chaos.simulation.story import Story
from simulator import Callback

#: The sender hangs up after 10 s; an answer later than this may come too late.
LATEST_ANSWER_S = 8.0


class Evidence:
    """Notes of one world. Keys of `effects` are (consumer, event_id)."""

    def __init__(self, story: Story) -> None:
        self._story = story
        self.sent: dict[str, Callback] = {}
        self.forged: set[str] = set()
        self.accepted: set[str] = set()
        self.given_up: set[str] = set()
        self.late: list[str] = []
        self.errors: list[str] = []
        self.effects: Counter[tuple[str, str]] = Counter()
        self.dropped: set[tuple[str, str]] = set()
        #: What can make a consumer's effect happen again: see `invariants`.
        self.disturbances = 0

    def answered(self, who: str, event_id: str, status: int, took_s: float, *, was_stopped: bool) -> None:
        """Note that a callback's answer left its ingest node."""
        self._story.tell(who, f"answered {status}", event_id[:8], f"{took_s:.3f} s")
        if status == 200:  # noqa: PLR2004 - the one that means: kept
            self.accepted.add(event_id)
        # A node that was stopped by a signal cannot keep to its time; its sender has hung up.
        if took_s > LATEST_ANSWER_S and not was_stopped:
            self.late.append(f"{event_id} was answered {status} after {took_s:.1f} s")

    def took_effect(self, who: str, consumer: str, event_id: str) -> None:
        """Note an effect outside the store."""
        self.effects[consumer, event_id] += 1
        self._story.tell(who, "effect", consumer, event_id[:8])

    def disturbed(self) -> None:
        """Note that a worker has died or was stopped, or that the store was away."""
        self.disturbances += 1

    def failed(self, who: str, what: str) -> None:
        """Note an error that the code did not expect."""
        self._story.tell(who, "error", what)
        self.errors.append(f"{who}: {what}")
