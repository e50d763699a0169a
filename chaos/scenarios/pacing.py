"""Time between two faults: long enough to see that the first one is over."""

from contextlib import suppress

from chaos.errors import ChaosError
from chaos.stage import Stage

#: Beyond the bound that the checker judges by, so that it has something to judge.
_GIVEN_UP_AFTER_S = 45.0

#: What is sent after a fault's end must have its effect before the next fault, or it says nothing about the first.
_EFFECTS = 20


def wait_moving(stage: Stage) -> None:
    """Return once effects come again, or it is clear that they do not: that is for the checker to say."""
    effects = stage.deployment.effects_file

    def lines() -> int:
        return effects.read_bytes().count(b"\n") if effects.exists() else 0

    wanted = lines() + _EFFECTS
    with suppress(ChaosError):
        stage.wait_until(lambda: lines() >= wanted, "effects", within_s=_GIVEN_UP_AFTER_S)
    stage.sleep(1.0)
