"""Every variable: its default, what it takes, and how a bad value is refused."""

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from store import Store, migrate
from tiw.settings import Address, Settings, SettingsError, UnixAddress, read_settings, unknown_variables

TOKEN = "t" * 22
SECRET = "hunter2-very-secret"


def settings(**environ: str) -> Settings:
    return read_settings(environ, is_terminal=False)


def refused(**environ: str) -> str:
    with pytest.raises(SettingsError) as error:
        settings(**environ)
    return str(error.value)


def test_nothing_has_to_be_set() -> None:
    assert settings() == Settings(
        callback_keys=None,
        callback_keys_file=None,
        allow_unsigned=frozenset(),
        path_token=None,
        http=Address(host="127.0.0.1", port=8080),
        admin=None,
        max_body_bytes=1_048_576,
        amqp_urls=(),
        database_url=f"sqlite+aiosqlite:///{Path.cwd()}/var/store.db",
        data_dir=Path("var"),
        consumers=(),
        retry_delays_s=(1, 5, 30, 120, 600, 3600),
        log_format="json",
    )
    assert settings().is_embedded


@pytest.mark.parametrize(
    ("variable", "value", "attribute", "expected"),
    [
        ("TIW_CALLBACK_KEYS", '{"1": ["k"]}', "callback_keys", '{"1": ["k"]}'),
        ("TIW_CALLBACK_KEYS_FILE", "/run/keys.json", "callback_keys_file", Path("/run/keys.json")),
        ("TIW_ALLOW_UNSIGNED", "0", "allow_unsigned", {0}),
        ("TIW_ALLOW_UNSIGNED", "0, 1400000001,", "allow_unsigned", {0, 1400000001}),
        ("TIW_PATH_TOKEN", "Az09._~-" * 3, "path_token", "Az09._~-" * 3),
        ("TIW_HTTP", "0.0.0.0:80", "http", Address(host="0.0.0.0", port=80)),
        ("TIW_HTTP", "[::1]:8080", "http", Address(host="::1", port=8080)),
        ("TIW_HTTP", "localhost:0", "http", Address(host="localhost", port=0)),
        ("TIW_HTTP", "unix:/run/a b/数.sock", "http", UnixAddress(path="/run/a b/数.sock")),
        ("TIW_HTTP", f"unix:/{'a' * 106}", "http", UnixAddress(path=f"/{'a' * 106}")),
        ("TIW_ADMIN", "127.0.0.1:9999", "admin", Address(host="127.0.0.1", port=9999)),
        ("TIW_MAX_BODY_BYTES", "1", "max_body_bytes", 1),
        ("TIW_MAX_BODY_BYTES", "15728640", "max_body_bytes", 15 * 1024 * 1024),
        ("TIW_AMQP_URL", "amqp://u:p@h:1/v", "amqp_urls", ("amqp://u:p@h:1/v",)),
        ("TIW_AMQP_URL", "amqp://a, amqps://b/", "amqp_urls", ("amqp://a", "amqps://b/")),
        ("TIW_DATABASE_URL", "postgresql+asyncpg://u:p@h/d", "database_url", "postgresql+asyncpg://u:p@h/d"),
        ("TIW_DATABASE_URL", "sqlite+aiosqlite:////a/b.db", "database_url", "sqlite+aiosqlite:////a/b.db"),
        ("TIW_DATA_DIR", "/data", "data_dir", Path("/data")),
        ("TIW_DATA_DIR", "/data", "database_url", "sqlite+aiosqlite:////data/store.db"),
        ("TIW_CONSUMERS", "archive.py, plugins ,my.module", "consumers", ("archive.py", "plugins", "my.module")),
        ("TIW_RETRY_DELAYS_S", "0.5, 1,2.5", "retry_delays_s", (0.5, 1, 2.5)),
        ("TIW_RETENTION_DAYS", "0", "retention_days", 0),
        ("TIW_RETENTION_DAYS", "90", "retention_days", 90),
        ("TIW_STOP_DELAY_S", "0", "stop_delay_s", 0),
        ("TIW_STOP_DELAY_S", "2.5", "stop_delay_s", 2.5),
        ("TIW_STOP_DELAY_S", "300", "stop_delay_s", 300),
        ("TIW_VENDOR_SITE", "china", "vendor_site", "china"),
        ("TIW_VENDOR_SITE", "international", "vendor_site", "international"),
        ("TIW_VENDOR_ENDPOINT", "http://127.0.0.1:9000", "vendor_endpoint", "http://127.0.0.1:9000"),
        (
            "TIW_VENDOR_ENDPOINT",
            "https://tiw.tencentcloudapi.com",
            "vendor_endpoint",
            "https://tiw.tencentcloudapi.com",
        ),
        ("TIW_RECONCILE_APPS", "1400000001, 2", "reconcile_apps", frozenset({1400000001, 2})),
        ("TIW_RECONCILE_LIST_EVERY_S", "15", "reconcile_list_every_s", 15),
        ("TIW_RECONCILE_ASK_AFTER_S", "300.5", "reconcile_ask_after_s", 300.5),
        ("TIW_REGISTER", "127.0.0.1:8090", "register", Address(host="127.0.0.1", port=8090)),
        ("TIW_REGISTER", "unix:/run/r.sock", "register", UnixAddress(path="/run/r.sock")),
        ("TIW_REGISTER_TOKEN", "t" * 22, "register_token", "t" * 22),
        ("TIW_CONSOLE", "off", "console", None),
        ("TIW_CONSOLE", "0.0.0.0:8090", "console", Address(host="0.0.0.0", port=8090)),
        ("TIW_CONSOLE_TOKEN", TOKEN, "console_token", TOKEN),
        ("TIW_CONSOLE_READ_TOKEN", TOKEN, "console_read_token", TOKEN),
        ("TIW_CONSOLE_URL", "https://tiw.school.example/", "console_url", "https://tiw.school.example"),
        ("TIW_CONSOLE_URL", "http://10.0.0.5:8090", "console_url", "http://10.0.0.5:8090"),
        (
            "TIW_CONSOLE_PEERS",
            "http://ingest:9080, http://[::1]:9081/,http://ingest:9080,http://archive:9080?",
            "console_peers",
            ("http://ingest:9080", "http://[::1]:9081", "http://archive:9080?"),
        ),
        ("TIW_LOG_FORMAT", "console", "log_format", "console"),
        ("TIW_LOG_FORMAT", "json", "log_format", "json"),
        ("TIW_NOTIFY", "wecom=https://h/?key=1", "notify", "wecom=https://h/?key=1"),
        ("TIW_NOTIFY_LANGUAGE", "both", "notify_language", "both"),
        ("TIW_NOTIFY_TEMPLATES", "/texts", "notify_templates", Path("/texts")),
    ],
)
def test_a_good_value_is_taken(variable: str, value: str, attribute: str, expected: Any) -> None:
    assert getattr(settings(**{variable: value}), attribute) == expected


@pytest.mark.parametrize(
    ("variable", "values"),
    [
        ("TIW_ALLOW_UNSIGNED", ["app", "-1", "1.5", "1;2", "\u0661", "9" * 19]),
        ("TIW_PATH_TOKEN", ["t" * 21, "t" * 30 + "/", "t" * 30 + " t", "\u00e9" * 30]),
        (
            "TIW_HTTP",
            ["8080", "localhost", ":8080", "h:port", "h:65536", "h:-1", "http://h:80", "u@h:80", "h:80/x", "["],
        ),
        (
            "TIW_HTTP",
            ["unix:", "unix:tiw.sock", "unix:/run/", "/run/tiw.sock", f"unix:/{'a' * 107}", f"unix:/{'数' * 36}"],
        ),
        ("TIW_ADMIN", ["9080", "h:", "h:80?x", "unix:/run/tiw.sock"]),
        ("TIW_MAX_BODY_BYTES", ["0", "-1", "1.5", "1 MiB", "15728641", "9" * 20]),
        ("TIW_AMQP_URL", ["h:5672", "http://h", "amqp://", "amqp://h,b", ",", " ", "amqp://["]),
        (
            "TIW_DATABASE_URL",
            ["h", "mysql://h/d", "postgresql://h/d", "postgres://h/d", "postgresql+asyncpg:///d", "sqlite:////x", " "],
        ),
        ("TIW_RETRY_DELAYS_S", ["0", "-1", "5,1", "1,1", "a", ",", "nan", "inf", "1;2", "2592001"]),
        ("TIW_RETENTION_DAYS", ["-1", "1.5", "90d", "36501", "\u0661"]),
        ("TIW_STOP_DELAY_S", ["-1", "3s", "301", "nan", "1e1"]),
        ("TIW_VENDOR_SECRET_ID", ["two words", "line\nbreak", "x" * 257, "\u00e9"]),
        ("TIW_VENDOR_SECRET_KEY", ["two words", "line\nbreak", "x" * 257, "\u00e9"]),
        ("TIW_VENDOR_SITE", ["China", "cn", "https://tiw.tencentcloudapi.com"]),
        ("TIW_VENDOR_ENDPOINT", ["tiw.tencentcloudapi.com", "http://10.0.0.1:80", "https://u:p@h", "https://h/path"]),
        ("TIW_RECONCILE_APPS", ["app", "0", "1,0", ",", "-1"]),
        ("TIW_RECONCILE_LIST_EVERY_S", ["0", "3601", "-1", "1m", "nan"]),
        ("TIW_RECONCILE_ASK_AFTER_S", ["0", "86401", "15m", "1e3"]),
        ("TIW_REGISTER", ["8090", "unix:r.sock", "http://h:1"]),
        ("TIW_REGISTER_TOKEN", ["t" * 21, "t" * 30 + " t"]),
        ("TIW_CONSOLE", ["Off", "no", "8090", "unix:/run/tiw.sock", "http://127.0.0.1:8090"]),
        ("TIW_CONSOLE_TOKEN", ["t" * 21, "t" * 30 + " t", "\u00e9" * 30]),
        ("TIW_CONSOLE_READ_TOKEN", ["t" * 21, "t" * 30 + "#"]),
        (
            "TIW_CONSOLE_URL",
            [
                *("tiw.school.example", "ftp://h", "https://", "https://h/console", "https://h?x=1", "https://h#x"),
                *("https://u:p@h", "https://h:0", "https://h:65536", "https://a b", "https://[", "https://*.h"),
            ],
        ),
        (
            "TIW_CONSOLE_PEERS",
            [
                *("ingest:9080", "https://ingest:9080", "http://ingest", "http://u:p@ingest:9080"),
                *(
                    "http://ingest:9080/metrics",
                    "http://a:1,b:2",
                    "http://a:1?b",
                    "?",
                    ",".join(f"http://h:{n + 1}" for n in range(65)),
                ),
            ],
        ),
        ("TIW_LOG_FORMAT", ["text", "JSON"]),
        ("TIW_NOTIFY_LANGUAGE", ["de", "EN", "en,zh"]),
    ],
)
def test_a_bad_value_is_refused_by_the_name_of_its_variable(variable: str, values: list[str]) -> None:
    for value in values:
        assert refused(**{variable: value}).startswith(f"{variable} must "), value


def test_registering_beyond_this_machine_needs_a_token() -> None:
    assert refused(TIW_REGISTER="0.0.0.0:8090").startswith("TIW_REGISTER beyond loopback needs TIW_REGISTER_TOKEN")
    assert settings(TIW_REGISTER="0.0.0.0:8090", TIW_REGISTER_TOKEN="t" * 22).register_token == "t" * 22
    assert settings(TIW_REGISTER="[::1]:8090").register is not None
    assert settings(TIW_REGISTER="unix:/run/r.sock").register is not None


def test_who_only_looks_at_the_console_needs_a_token_of_their_own(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(TOKEN, encoding="utf-8")
    both = refused(TIW_CONSOLE_TOKEN_FILE=str(file), TIW_CONSOLE_READ_TOKEN=TOKEN)
    assert both.startswith("TIW_CONSOLE_READ_TOKEN is TIW_CONSOLE_TOKEN")
    assert TOKEN not in both


def test_the_log_is_for_people_on_a_terminal() -> None:
    assert read_settings({}, is_terminal=True).log_format == "console"
    assert read_settings({"TIW_LOG_FORMAT": "json"}, is_terminal=True).log_format == "json"


VARIABLES = [
    *("TIW_CALLBACK_KEYS", "TIW_CALLBACK_KEYS_FILE", "TIW_ALLOW_UNSIGNED", "TIW_PATH_TOKEN", "TIW_PATH_TOKEN_FILE"),
    *("TIW_HTTP", "TIW_ADMIN", "TIW_MAX_BODY_BYTES", "TIW_AMQP_URL", "TIW_AMQP_URL_FILE", "TIW_DATABASE_URL"),
    *(
        "TIW_DATABASE_URL_FILE",
        "TIW_DATA_DIR",
        "TIW_CONSUMERS",
        "TIW_RETRY_DELAYS_S",
        "TIW_RETENTION_DAYS",
        "TIW_STOP_DELAY_S",
        "TIW_LOG_FORMAT",
        "TIW_NOTIFY",
        "TIW_NOTIFY_FILE",
        "TIW_NOTIFY_LANGUAGE",
        "TIW_NOTIFY_TEMPLATES",
    ),
    *("TIW_VENDOR_SECRET_ID", "TIW_VENDOR_SECRET_ID_FILE", "TIW_VENDOR_SECRET_KEY", "TIW_VENDOR_SECRET_KEY_FILE"),
    *("TIW_VENDOR_SITE", "TIW_VENDOR_ENDPOINT", "TIW_RECONCILE_APPS", "TIW_RECONCILE_LIST_EVERY_S"),
    *("TIW_RECONCILE_ASK_AFTER_S", "TIW_REGISTER", "TIW_REGISTER_TOKEN", "TIW_REGISTER_TOKEN_FILE"),
    *("TIW_CONSOLE", "TIW_CONSOLE_TOKEN", "TIW_CONSOLE_TOKEN_FILE", "TIW_CONSOLE_READ_TOKEN"),
    *("TIW_CONSOLE_READ_TOKEN_FILE", "TIW_CONSOLE_URL", "TIW_CONSOLE_PEERS"),
]


@pytest.mark.parametrize("variable", VARIABLES)
def test_an_empty_variable_counts_as_unset(variable: str) -> None:
    assert settings(**{variable: ""}) == settings()


def test_every_variable_is_known_and_no_other() -> None:
    assert unknown_variables(dict.fromkeys(VARIABLES, "")) == []
    others = {"TIW_HTPP": "", "TIW_CONSUMERS_FILE": "", "TIW_": "", "PATH": "", "tiw_http": "", "TIW_PUBLISH": ""}
    assert unknown_variables(others) == ["TIW_", "TIW_CONSUMERS_FILE", "TIW_HTPP"]


FILES = [
    ("TIW_PATH_TOKEN", TOKEN, "path_token", TOKEN),
    ("TIW_CONSOLE_TOKEN", TOKEN, "console_token", TOKEN),
    ("TIW_CONSOLE_READ_TOKEN", TOKEN, "console_read_token", TOKEN),
    ("TIW_AMQP_URL", "amqp://u:p@h", "amqp_urls", ("amqp://u:p@h",)),
    ("TIW_DATABASE_URL", "postgresql+asyncpg://u:p@h/d", "database_url", "postgresql+asyncpg://u:p@h/d"),
]


@pytest.mark.parametrize(("variable", "value", "attribute", "expected"), FILES)
def test_a_secret_can_come_from_a_file(
    tmp_path: Path, *, variable: str, value: str, attribute: str, expected: object
) -> None:
    file = tmp_path / "secret"
    file.write_text(f"  {value}\r\n", encoding="utf-8")
    assert getattr(settings(**{f"{variable}_FILE": str(file)}), attribute) == expected
    # The other one, empty, counts as unset.
    assert getattr(settings(**{f"{variable}_FILE": str(file), variable: ""}), attribute) == expected


@pytest.mark.parametrize("variable", [name for name, *_ in FILES])
def test_a_secret_file_that_cannot_be_used_is_named(tmp_path: Path, variable: str) -> None:
    absent, empty, binary = tmp_path / "absent", tmp_path / "empty", tmp_path / "binary"
    empty.write_text("\n", encoding="utf-8")
    binary.write_bytes(b"\xff")
    assert refused(**{f"{variable}_FILE": str(absent)}).startswith(f"{variable}_FILE names {absent}, which cannot be ")
    assert refused(**{f"{variable}_FILE": str(tmp_path)}).startswith(f"{variable}_FILE names {tmp_path}, which cannot")
    assert refused(**{f"{variable}_FILE": str(binary)}).startswith(f"{variable}_FILE names {binary}, which cannot be ")
    assert refused(**{f"{variable}_FILE": str(empty)}).startswith(f"{variable} must ")


@pytest.mark.parametrize("variable", [*(name for name, *_ in FILES), "TIW_CALLBACK_KEYS"])
def test_a_secret_and_its_file_together_are_refused(tmp_path: Path, variable: str) -> None:
    both = refused(**{variable: "x", f"{variable}_FILE": str(tmp_path / "secret")})
    assert both == f"{variable} and {variable}_FILE are both set: keep one of them"


def test_credentials_of_the_vendor_come_together_from_variables_or_files(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text(f"{SECRET}\n", encoding="utf-8")
    found = settings(TIW_VENDOR_SECRET_ID="AKIDexample", TIW_VENDOR_SECRET_KEY_FILE=str(file))
    assert (found.vendor_secret_id, found.vendor_secret_key) == ("AKIDexample", SECRET)
    assert (settings().vendor_secret_id, settings().vendor_secret_key) == (None, None)


def test_one_half_of_the_credentials_alone_is_refused_without_showing_it(tmp_path: Path) -> None:
    alone = "TIW_VENDOR_SECRET_ID is set and TIW_VENDOR_SECRET_KEY is not: set both, or neither"
    assert refused(TIW_VENDOR_SECRET_ID=SECRET) == alone
    file = tmp_path / "secret"
    file.write_text(SECRET, encoding="utf-8")
    other = "TIW_VENDOR_SECRET_KEY is set and TIW_VENDOR_SECRET_ID is not: set both, or neither"
    assert refused(TIW_VENDOR_SECRET_KEY_FILE=str(file)) == other
    both = refused(TIW_VENDOR_SECRET_KEY=SECRET, TIW_VENDOR_SECRET_KEY_FILE=str(file))
    assert both == "TIW_VENDOR_SECRET_KEY and TIW_VENDOR_SECRET_KEY_FILE are both set: keep one of them"


def test_a_file_of_keys_is_left_to_whoever_watches_it(tmp_path: Path) -> None:
    absent = tmp_path / "keys.json"
    assert settings(TIW_CALLBACK_KEYS_FILE=str(absent)).callback_keys_file == absent


@pytest.mark.parametrize(
    "environ",
    [
        {"TIW_PATH_TOKEN": SECRET},
        {"TIW_PATH_TOKEN": f"{SECRET}{SECRET}/"},
        {"TIW_AMQP_URL": f"http://u:{SECRET}@h"},
        {"TIW_AMQP_URL": f"amqp://u:{SECRET}@h,x"},
        {"TIW_DATABASE_URL": f"mysql://u:{SECRET}@h/d"},
        {"TIW_DATABASE_URL": f"postgresql://u:{SECRET}@h/d"},
        {"TIW_CALLBACK_KEYS": SECRET, "TIW_CALLBACK_KEYS_FILE": "/keys"},
        {"TIW_VENDOR_SECRET_ID": f"{SECRET} {SECRET}"},
        {"TIW_VENDOR_SECRET_KEY": f"{SECRET}\u00e9"},
        {"TIW_VENDOR_ENDPOINT": f"https://u:{SECRET}@h"},
        {"TIW_CONSOLE_TOKEN": SECRET},
        {"TIW_CONSOLE_READ_TOKEN": SECRET},
        {"TIW_CONSOLE_URL": f"https://u:{SECRET}@h"},
        {"TIW_CONSOLE_PEERS": f"http://u:{SECRET}@h:1"},
    ],
)
def test_a_secret_is_never_in_the_words_of_an_error(environ: dict[str, str]) -> None:
    assert SECRET not in refused(**environ)


def test_a_secret_from_a_file_is_never_in_the_words_of_an_error(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text(SECRET, encoding="utf-8")
    for variable, *_ in FILES:
        assert SECRET not in refused(**{f"{variable}_FILE": str(file)})


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.5", "[::]", "example.com"])
def test_unsigned_callbacks_beyond_loopback_need_a_path_token(host: str) -> None:
    open_door = {"TIW_ALLOW_UNSIGNED": "0", "TIW_HTTP": f"{host}:8080"}
    assert "needs TIW_PATH_TOKEN" in refused(**open_door)
    assert settings(**open_door, TIW_PATH_TOKEN=TOKEN).path_token == TOKEN


@pytest.mark.parametrize(
    "address", ["127.0.0.1:8080", "127.5.5.5:8080", "[::1]:8080", "localhost:8080", "unix:/run/tiw.sock"]
)
def test_unsigned_callbacks_from_this_machine_need_none(address: str) -> None:
    assert settings(TIW_ALLOW_UNSIGNED="0", TIW_HTTP=address).allow_unsigned == {0}


def test_an_address_is_shown_as_it_is_written() -> None:
    for written in ("127.0.0.1:8080", "[::1]:8080", "localhost:1", "unix:/run/tiw.sock"):
        assert str(settings(TIW_HTTP=written).http) == written


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("TIW_AMQP_URL", "amqp://user:S3c#ret@host:5672/"),
        ("TIW_AMQP_URL", "amqp://user:S3c?ret@host/"),
        ("TIW_AMQP_URL", "amqp://user:S3c/ret@host/"),
        ("TIW_AMQP_URL", "amqp://user:S3c[ret@host/"),
        ("TIW_DATABASE_URL", "postgresql+asyncpg://user:S3c@ret@host/db"),
        ("TIW_DATABASE_URL", "postgresql+asyncpg://user:S3c[ret@host/db"),
    ],
)
def test_a_password_with_an_unescaped_character_is_told_to_be_one_and_not_shown(name: str, url: str) -> None:
    with pytest.raises(SettingsError, match="percent-encoded") as raised:
        read_settings({name: url}, is_terminal=False)
    assert "S3c" not in str(raised.value)
    assert "ret" not in str(raised.value).replace("percent", "")


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("TIW_AMQP_URL", "amqp://user:S3c%23ret@host:5672/"),
        ("TIW_AMQP_URL", "amqp://host:5672/vhost?name=a@b"),
        ("TIW_AMQP_URL", "amqp://user:S3c@ret@host/"),
        ("TIW_DATABASE_URL", "postgresql+asyncpg://user:S3c/ret@host/db"),
        ("TIW_AMQP_URL", "amqp://user:S3c ret:more@host/,amqp://user:S3cret@other/"),
        ("TIW_DATABASE_URL", "postgresql+asyncpg://user:S3c%40ret@host:5432/db?application_name=a@b"),
        ("TIW_DATABASE_URL", "sqlite+aiosqlite:////srv/a@b/c@d.db"),
    ],
)
def test_a_url_that_is_read_as_it_is_meant_is_taken(name: str, url: str) -> None:
    assert url.split(",", maxsplit=1)[0] in str(read_settings({name: url}, is_terminal=False))


def test_a_home_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TIW_DATA_DIR", "TIW_CALLBACK_KEYS_FILE"):
        with pytest.raises(SettingsError, match=f"{name} begins with ~ and no user of this system"):
            read_settings({name: "~nobody_of_this_name/data"}, is_terminal=False)
    monkeypatch.setenv("HOME", "/srv/school")
    assert read_settings({"TIW_DATA_DIR": "~/tiw"}, is_terminal=False).data_dir == Path("/srv/school/tiw")


@pytest.mark.parametrize("folder", ["a b", "q?x#y", "100%", "%3F", "数学", "back\\slash", "trailing/"])
async def test_the_store_is_in_the_data_folder_whatever_its_name_is(tmp_path: Path, folder: str) -> None:
    data_dir = tmp_path / folder
    settings = read_settings({"TIW_DATA_DIR": str(data_dir)}, is_terminal=False)
    async with Store(settings.database_url) as store:
        await migrate(store)
    assert await asyncio.to_thread(os.listdir, tmp_path) == [data_dir.name]
    assert "store.db" in await asyncio.to_thread(os.listdir, data_dir)
