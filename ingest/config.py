"""What an ingest server is told, and what it needs of a transport."""

import re
from pathlib import Path
from typing import Protocol

from msgspec import Struct

from broker import DEFAULT_CONFIRM_TIMEOUT_S, Message, OnPublished

_PATH_TOKEN = re.compile(r"[A-Za-z0-9._~-]{22,}")


class Budget(Struct, frozen=True, kw_only=True):
    """The seconds of one callback, from its complete headers to its answer: the sender hangs up after 10 s.

    `body_s` for the body, `look_s` for the look at a large one that is not plain, the wait for a thread included,
    `confirm_s` for the broker to confirm it, `spool_s` for the spool after that. Whatever came before, it is kept
    within `total_s` or answered 503, so that every answer leaves within 8 s.
    """

    body_s: float = 2.0
    look_s: float = 1.0
    confirm_s: float = DEFAULT_CONFIRM_TIMEOUT_S
    spool_s: float = 2.5
    total_s: float = 7.5


class IngestConfig(Struct, frozen=True, kw_only=True):
    """Settings of one `IngestServer`.

    `port` 0 takes a free one. With `path_token` the address is `/callbacks/tiw/TOKEN`. `allow_unsigned` are the
    SdkAppIds whose callbacks need no Sign; 0 stands for callbacks without SdkAppId. `max_in_flight` and
    `max_in_flight_bytes` bound the callbacks that are not answered yet and their bodies, all together;
    `max_unconfirmed` those that wait for the broker: with a spool, more go straight there.
    `reuse_port` lets several processes share the port. With `unix_socket` there is no port but a socket at that path;
    `inherited` is the descriptor of one that another process has made there, and listens already. `rejected_folder` is
    where refused callbacks are kept that another key might let in; None: they are not. `max_connections` bounds the
    connections that are open together. For `stop_delay_s` a drain goes on accepting, while health checks say 503.
    Raises ValueError for a path token that is short or would not survive in a URL.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    path_token: str | None = None
    max_body_bytes: int = 1024 * 1024
    max_in_flight: int = 10_000
    max_unconfirmed: int = 5_000
    max_in_flight_bytes: int = 64 * 1024 * 1024
    allow_unsigned: frozenset[int] = frozenset()
    reuse_port: bool = False
    unix_socket: Path | None = None
    inherited: int | None = None
    rejected_folder: Path | None = None
    max_connections: int = 10_000
    stop_delay_s: float = 0.0
    budget: Budget = Budget()

    def __post_init__(self) -> None:
        if self.path_token is not None and not _PATH_TOKEN.fullmatch(self.path_token):
            raise ValueError("the path token needs at least 22 characters, of letters, digits and . _ ~ - alone")

    @property
    def path(self) -> str:
        """Where callbacks are received."""
        return "/callbacks/tiw" if self.path_token is None else f"/callbacks/tiw/{self.path_token}"


class Publisher(Protocol):
    """The part of `broker.Transport` that the spool's drain uses."""

    @property
    def is_ready(self) -> bool:
        """Whether a publish would go to a broker that is there."""

    async def publish(self, message: Message) -> None:
        """Return once `message` is durable. Raises `broker.BrokerError` if it is not known to be."""


class LivePublisher(Publisher, Protocol):
    """The part of `broker.Transport` that live callbacks use."""

    def begin_publish(self, message: Message, on_done: OnPublished) -> bool:
        """Begin what `publish` does, if that can begin at once; False: it cannot, and nothing was done.

        `on_done` is called once, later, on the event loop: with None once `message` is durable, else with the error.
        """
