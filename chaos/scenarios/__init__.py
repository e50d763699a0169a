"""All scenarios, in the order in which they run. A module each; its SCENARIOS are added here."""

from chaos.scenario import Scenario
from chaos.scenarios import connections, killing

ALL: tuple[Scenario, ...] = (*killing.SCENARIOS, *connections.SCENARIOS)
