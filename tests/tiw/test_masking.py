"""What `tiw config` shows."""

import json
from pathlib import Path

import msgspec
import pytest

from tiw.commands.config import EffectiveSettings
from tiw.settings import masked, read_settings

SECRET = "hunter2-very-secret-and-long"
EVERYTHING = {
    "TIW_CALLBACK_KEYS": f'{{"1400000001": ["{SECRET}"]}}',
    "TIW_PATH_TOKEN": SECRET,
    "TIW_AMQP_URL": f"amqp://user:{SECRET}@one:5672/v,amqps://user:{SECRET}@two/",
    "TIW_DATABASE_URL": f"postgresql+asyncpg://user:{SECRET}@db/tiw",
    "TIW_VENDOR_SECRET_ID": f"AKID{SECRET}",
    "TIW_VENDOR_SECRET_KEY": SECRET,
    "TIW_ARCHIVE": "s3://classes",
    "TIW_ARCHIVE_S3_KEY_ID": f"AKID{SECRET}",
    "TIW_ARCHIVE_S3_SECRET": SECRET,
    "TIW_CONSOLE_TOKEN": SECRET,
    "TIW_CONSOLE_READ_TOKEN": SECRET[::-1],
    "TIW_ALLOW_UNSIGNED": "2,0",
}


def test_secrets_are_masked() -> None:
    values = masked(read_settings(EVERYTHING, is_terminal=False))
    assert SECRET not in str(values)
    assert SECRET[::-1] not in str(values)
    assert values["callback_keys"] == "***"
    assert values["path_token"] == "***"
    assert values["amqp_urls"] == ["amqp://user:***@one:5672/v", "amqps://user:***@two/"]
    assert values["database_url"] == "postgresql+asyncpg://user:***@db/tiw"


def test_revealing_shows_the_keys_and_the_token_but_no_password() -> None:
    values = masked(read_settings(EVERYTHING, is_terminal=False), reveal=True)
    assert values["callback_keys"] == EVERYTHING["TIW_CALLBACK_KEYS"]
    assert values["path_token"] == SECRET
    assert SECRET not in str(values["amqp_urls"])
    assert SECRET not in str(values["database_url"])
    assert (values["vendor_secret_id"], values["vendor_secret_key"]) == ("***", "***")
    assert (values["console_token"], values["console_read_token"]) == ("***", "***")


@pytest.mark.parametrize(
    "url",
    [
        f"amqp://:{SECRET}@h",
        f"amqp://user:{SECRET}@more@h",
        f"amqp://user:p@{SECRET}@h",
        f"amqp://user:p:{SECRET}@h",
        f"amqp://user:{SECRET}@h/v?heartbeat=5",
        f"amqp://h/v?password={SECRET}&x=1",
        f"amqp://h/v?x=1&ssl_PASSWORD={SECRET}",
    ],
)
def test_a_password_is_masked_wherever_it_stands(url: str) -> None:
    (shown,) = msgspec.convert(masked(read_settings({"TIW_AMQP_URL": url}, is_terminal=False))["amqp_urls"], list[str])
    assert SECRET not in shown
    assert "***" in shown


def test_everything_else_is_shown_as_it_is() -> None:
    values = masked(read_settings({"TIW_DATA_DIR": "/data", "TIW_HTTP": "[::1]:80"}, is_terminal=False))
    assert json.loads(msgspec.json.encode(values)) == {
        "callback_keys": None,
        "callback_keys_file": None,
        "allow_unsigned": [],
        "path_token": None,
        "http": "[::1]:80",
        "admin": None,
        "max_body_bytes": 1_048_576,
        "amqp_urls": [],
        "database_url": "sqlite+aiosqlite:////data/store.db",
        "data_dir": str(Path("/data")),
        "spool_max_bytes": 1073741824,
        "consumers": [],
        "retry_delays_s": [1, 5, 30, 120, 600, 3600],
        "retention_days": 0,
        "stop_delay_s": 0.0,
        "vendor_secret_id": None,
        "vendor_secret_key": None,
        "vendor_site": "china",
        "vendor_endpoint": None,
        "reconcile_apps": None,
        "reconcile_list_every_s": 60.0,
        "reconcile_ask_after_s": 900.0,
        "register": None,
        "register_token": None,
        "log_format": "json",
        "notify": None,
        "notify_language": "en",
        "notify_templates": None,
        "archive": None,
        "archive_s3_endpoint": None,
        "archive_s3_region": None,
        "archive_s3_style": None,
        "archive_s3_key_id": None,
        "archive_s3_secret": None,
        "archive_hosts": None,
        "archive_networks": None,
        "archive_staging": "/data/staging",
        "archive_at_once": 4,
        "archive_bytes_per_s": None,
        "archive_least_bytes_per_s": 65_536,
        "archive_max_file_bytes": 64 * 1024**3,
        "archive_min_free_bytes": 2 * 1024**3,
        "files_kept_hours": 72.0,
        "console": "127.0.0.1:8090",
        "console_token": None,
        "console_read_token": None,
        "console_url": None,
        "console_peers": [],
    }
    assert masked(read_settings(EVERYTHING, is_terminal=False))["allow_unsigned"] == [0, 2]


def test_every_setting_is_shown() -> None:
    assert set(masked(read_settings({}, is_terminal=False))) <= set(EffectiveSettings.__struct_fields__)
