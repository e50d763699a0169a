"""What the settings mean for an ingest server."""

from pathlib import Path

from ingest import IngestConfig
from tiw.settings import Settings


def rejected_folder(settings: Settings) -> Path:
    """Return where refused callbacks are kept that other keys might let in."""
    return settings.data_dir / "rejected"


def ingest_config(settings: Settings, *, reuse_port: bool = False) -> IngestConfig:
    """Return the configuration of an ingest server."""
    return IngestConfig(
        host=settings.http.host,
        port=settings.http.port,
        path_token=settings.path_token,
        max_body_bytes=settings.max_body_bytes,
        allow_unsigned=settings.allow_unsigned,
        reuse_port=reuse_port,
        rejected_folder=rejected_folder(settings),
    )
