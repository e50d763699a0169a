"""All scenarios, in the order in which they run. A module each; its SCENARIOS are added here."""

from chaos.scenario import Scenario
from chaos.scenarios import (
    alarms,
    broker_down,
    cluster,
    connections,
    consumers,
    database,
    freezing,
    killing,
    power_loss,
    rolling,
    several,
)

ALL: tuple[Scenario, ...] = (
    *killing.SCENARIOS,
    *broker_down.SCENARIOS,
    *alarms.SCENARIOS,
    *database.SCENARIOS,
    *freezing.SCENARIOS,
    *power_loss.SCENARIOS,
    *rolling.SCENARIOS,
    *consumers.SCENARIOS,
    *several.SCENARIOS,
    *connections.SCENARIOS,
    *cluster.SCENARIOS,
)
