"""`tiw config`: the effective settings."""

import argparse
import os
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct, structs

from tiw.keys import keys_file
from tiw.output import print_fields, print_json
from tiw.settings import DEFAULT_ADMIN, Settings, masked, unknown_variables


class EffectiveSettings(Struct, frozen=True, kw_only=True):
    """Every setting as it is in effect; `admin_of_work` is that of `tiw work`, which has none unless it is named.

    `callback_keys` says instead what is wrong with their file, if it cannot be read.
    """

    callback_keys: str | None
    callback_keys_file: str | None
    allow_unsigned: list[int]
    path_token: str | None
    http: str
    admin: str
    max_body_bytes: int
    amqp_urls: list[str]
    database_url: str
    data_dir: str
    spool_max_bytes: int
    consumers: list[str]
    retry_delays_s: list[float]
    retention_days: int
    stop_delay_s: float
    vendor_secret_id: str | None
    vendor_secret_key: str | None
    vendor_site: Literal["china", "international"]
    vendor_endpoint: str | None
    reconcile_apps: list[int] | None
    reconcile_list_every_s: float
    reconcile_ask_after_s: float
    register: str | None
    register_token: str | None
    log_format: Literal["console", "json"]
    notify: list[str] | None
    notify_language: Literal["en", "zh", "both"]
    notify_templates: str | None
    archive: str | None
    archive_s3_endpoint: str | None
    archive_s3_region: str | None
    archive_s3_style: Literal["virtual", "path"] | None
    archive_s3_key_id: str | None
    archive_s3_secret: str | None
    archive_hosts: str | None
    archive_networks: str | None
    archive_staging: str
    archive_at_once: int
    archive_bytes_per_s: int | None
    archive_least_bytes_per_s: int
    archive_max_file_bytes: int
    archive_min_free_bytes: int
    files_kept_hours: float
    console: str
    console_token: str | None
    console_read_token: str | None
    console_url: str | None
    console_peers: list[str]
    admin_of_work: str | None
    unknown_variables: list[str]


def config(settings: Settings, args: argparse.Namespace) -> int:
    """Print every setting with its value; secrets masked unless `--reveal`."""
    values = masked(settings, reveal=args.reveal)
    file = keys_file(settings)
    if settings.callback_keys is None:
        values |= _of_file(file, reveal=args.reveal)
    # In effect: `work` has a listener only where one is named.
    values["admin"] = str(settings.admin or DEFAULT_ADMIN)
    values["admin_of_work"] = None if settings.admin is None else str(settings.admin)
    values["unknown_variables"] = unknown_variables(os.environ)
    effective = msgspec.convert(values, EffectiveSettings)
    if args.json:
        print_json(effective)
    else:
        print_fields({name: _shown(value) for name, value in structs.asdict(effective).items()})
    return 0


def _of_file(file: Path, *, reveal: bool) -> dict[str, object]:
    try:
        content = file.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        return {"callback_keys": f"{file} cannot be read: {reason}", "callback_keys_file": str(file)}
    return {"callback_keys": content if reveal else "***", "callback_keys_file": str(file)}


def _shown(value: object) -> object:
    if isinstance(value, list):
        return ", ".join(str(item) for item in value)
    return value
