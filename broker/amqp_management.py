"""What only RabbitMQ's management API tells. It is a convenience: where it does not answer, None."""

from base64 import b64encode
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import aiohttp
import structlog
from yarl import URL

from broker.amqp_endpoints import Endpoint

TIMEOUT_S = 2.0
_PORTS = {"amqp": ("http", 15672), "amqps": ("https", 15671)}

_log = structlog.get_logger()


class Management:
    """Reads the management API of one broker, at `url` or at its usual port, with the broker's credentials."""

    def __init__(self, endpoint: Endpoint, *, url: str | None = None) -> None:
        scheme, port = _PORTS[endpoint.url.scheme]
        self._base = URL(url) if url else URL.build(scheme=scheme, host=endpoint.url.host or "", port=port)
        self._vhost = quote(endpoint.url.path.removeprefix("/") or "/", safe="")
        credentials = f"{endpoint.url.user or 'guest'}:{endpoint.url.password or 'guest'}"
        self._headers = {"Authorization": f"Basic {b64encode(credentials.encode()).decode()}"}

    async def unacked(self) -> dict[str, int] | None:
        """Return the deliveries that are not settled, by queue. The broker counts every few seconds."""
        queues = await self._get(f"queues/{self._vhost}?columns=name,messages_unacknowledged")
        if not isinstance(queues, list):
            return None
        return {queue["name"]: queue.get("messages_unacknowledged", 0) for queue in queues}

    async def alarms(self) -> tuple[str, ...] | None:
        """Return the alarms that stop publishing now: `memory` or `disk`, each with the node that raised it."""
        nodes = await self._get("nodes?columns=name,mem_alarm,disk_free_alarm")
        if not isinstance(nodes, list):
            return None
        return tuple(
            f"{alarm} on {node['name']}"
            for node in nodes
            for alarm, field in (("memory", "mem_alarm"), ("disk", "disk_free_alarm"))
            if node.get(field)
        )

    async def feature_flags_disabled(self) -> tuple[str, ...] | None:
        """Return the feature flags that are disabled and should not be: experimental ones are (khepri_db on 4.0)."""
        flags = await self._get("feature-flags")
        if not isinstance(flags, list):
            return None
        return tuple(
            flag["name"]
            for flag in flags
            if flag.get("state") == "disabled" and flag.get("stability") != "experimental"
        )

    async def _get(self, path: str) -> Any:
        url = URL(f"{str(self._base).rstrip('/')}/api/{path}", encoded=True)
        try:
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_S), headers=self._headers) as session,
                session.get(url) as response,
            ):
                if response.status != HTTPStatus.OK:
                    return None
                return await response.json()
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            _log.debug(
                "management_not_answering", host=self._base.host, port=self._base.port, error=type(error).__name__
            )
            return None
