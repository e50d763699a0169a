"""Reading what lies in the spools of ingest nodes, with the command that an operator has for it."""

import json
from typing import Any

from chaos.errors import ChaosError
from chaos.evidence.outcome import Waiting
from chaos.machine.deployment import Deployment


def read_spools(deployment: Deployment) -> tuple[tuple[Waiting, ...], tuple[str, ...], tuple[str, ...]]:
    """Return what waits, the names of the spools that were read, and why others were not."""
    waiting: list[Waiting] = []
    read: list[str] = []
    not_read: list[str] = []
    by_folder = {node.environ["TIW_DATA_DIR"]: node for node in deployment.ingest}
    for node in by_folder.values():
        place = f"spool of {node.name}"
        try:
            listed = json.loads(
                deployment.run("spool", "list", "--json", "--limit", "0", environ=deployment.environ_of(node))
            )
        except ChaosError as error:
            not_read.append(f"{place}: {error}")
            continue
        read.append(place)
        ids = tuple(_event_id(one) for one in listed)
        if ids:
            waiting.append(Waiting(place=place, count=len(ids), event_ids=ids))
    return tuple(waiting), tuple(read), tuple(not_read)


def _event_id(listed: Any) -> str:
    return str(listed.get("event_id", ""))
