"""What a scenario's evidence is held against: the part of the scenario that the checker needs."""

from msgspec import Struct

from chaos.scenario import Scenario


class Terms(Struct, frozen=True, kw_only=True):
    """See `Scenario` and `Layout`, whose values these are."""

    scenario: str
    consumers: tuple[str, ...]
    meant_to_fail: tuple[str, ...] = ()
    recovers_within_s: float = 30.0
    may_give_up: str | None = None


def terms_of(scenario: Scenario) -> Terms:
    """Return the terms of a scenario."""
    return Terms(
        scenario=scenario.name,
        consumers=scenario.layout.consumers,
        meant_to_fail=scenario.meant_to_fail,
        recovers_within_s=scenario.recovers_within_s,
        may_give_up=scenario.may_give_up,
    )
