"""How long messages take, and which are lost: drawn from the world's seed."""

from random import Random

from msgspec import Struct

#: The share of dying processes whose last messages are already in the network.
_LINGERING = 0.5


class Weather(Struct, frozen=True, kw_only=True):
    """What the network does, as shares from 0 to 1 and seconds.

    `slow` of all messages take up to `slow_s`; `lost_confirms` of the broker's confirms and `lost_answers` of the HTTP
    answers never arrive; `repeated` of the messages that wait for a retry come home twice; `overtaken` of the
    deliveries go before an older one.
    """

    slow: float = 0.02
    slow_s: float = 0.5
    lost_confirms: float = 0.0
    lost_answers: float = 0.0
    repeated: float = 0.0
    overtaken: float = 0.1


class Network:
    """Draws what becomes of each message. `weather` may change at any time."""

    def __init__(self, rng: Random, weather: Weather) -> None:
        self._rng = rng
        self.weather = weather

    def latency_s(self) -> float:
        """Return how long a message is on its way."""
        if self._rng.random() < self.weather.slow:
            return self._rng.uniform(0.002, self.weather.slow_s)
        return self._rng.uniform(0.0002, 0.002)

    def loses_confirm(self) -> bool:
        """Say whether this confirm is lost."""
        return self._rng.random() < self.weather.lost_confirms

    def loses_answer(self) -> bool:
        """Say whether this HTTP answer is lost."""
        return self._rng.random() < self.weather.lost_answers

    def repeats(self) -> bool:
        """Say whether this message comes twice."""
        return self._rng.random() < self.weather.repeated

    def next_of(self, waiting: int) -> int:
        """Return which of so many messages goes next: mostly the oldest."""
        if waiting > 1 and self._rng.random() < self.weather.overtaken:
            return self._rng.randrange(min(waiting, 8))
        return 0

    def pick(self, count: int) -> int:
        """Return one of `count` that are as good as each other."""
        return self._rng.randrange(count) if count > 1 else 0

    def lingers(self) -> bool:
        """Say whether what a dead process has sent still arrives."""
        return self._rng.random() < _LINGERING
