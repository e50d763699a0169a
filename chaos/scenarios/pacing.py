"""Time between two faults: long enough for each to be judged by itself."""

from contextlib import suppress

from chaos.errors import ChaosError
from chaos.stage import Stage

#: Beyond the bound that the checker judges by, so that it has something to judge.
_GIVEN_UP_AFTER_S = 60.0

#: So many of those that were accepted may still be under way.
_UNDER_WAY = 15

#: What is sent after a fault's end must have its effect before the next fault, or it says nothing about the first.
_CALM_S = 1.0


def wait_moving(stage: Stage) -> None:
    """Return once what was accepted has had its effects, or it is clear that it has not: the checker judges that.

    A fault that meets the backlog of the one before would be judged for both.
    """
    effects = stage.deployment.effects_file

    def have_come() -> int:
        return effects.read_bytes().count(b"\n") if effects.exists() else 0

    with suppress(ChaosError):
        stage.wait_until(
            lambda: have_come() >= stage.sending.accepted() - _UNDER_WAY, "effects", within_s=_GIVEN_UP_AFTER_S
        )
    stage.sleep(_CALM_S)
