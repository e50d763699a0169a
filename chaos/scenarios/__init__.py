"""All scenarios, in the order in which they run. A module each; its SCENARIOS are added here."""

from chaos.scenario import Scenario
from chaos.scenarios import (
    alarms,
    archiving,
    broker_down,
    clocks,
    cluster,
    connections,
    consumers,
    database,
    disk,
    freezing,
    killing,
    lost_callbacks,
    power_loss,
    rolling,
    several,
    slow_clients,
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
    *slow_clients.SCENARIOS,
    *connections.SCENARIOS,
    *disk.SCENARIOS,
    *clocks.SCENARIOS,
    *lost_callbacks.SCENARIOS,
    *archiving.SCENARIOS,
    *cluster.SCENARIOS,
)
