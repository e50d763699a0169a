"""The one place that reads the environment: a process's Settings, built once at its start."""

import ipaddress
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, TypeVar, cast
from urllib.parse import SplitResult, urlsplit

import msgspec
from msgspec import Struct

from broker import DEFAULT_RETRY_DELAYS_S

#: RabbitMQ 4 refuses messages over 16 MiB; a margin is left for headers.
MAX_BODY_BYTES_LIMIT = 15 * 1024 * 1024

MIN_PATH_TOKEN_CHARACTERS = 22

#: An hour of a broker's absence at some hundred callbacks a second.
DEFAULT_SPOOL_MAX_BYTES = 1024 * 1024 * 1024

#: It has to hold the largest callback.
MIN_SPOOL_BYTES = 16 * 1024 * 1024

#: As long as the kernel takes it, with the zero at its end: unix(7).
MAX_UNIX_PATH_BYTES = 107

#: A TTL is a whole number of milliseconds.
MIN_RETRY_DELAY_S = 0.001

#: Longest retry delay: RabbitMQ takes a TTL up to 2^32 - 1 milliseconds, and a year is a typing mistake.
MAX_RETRY_DELAY_S = 30 * 86_400

#: A hundred years; more is a typing mistake.
MAX_RETENTION_DAYS = 36_500

#: A load balancer that needs longer to notice asks too seldom.
MAX_STOP_DELAY_S = 300

#: The vendor is asked so often at most, and at least.
MIN_LIST_EVERY_S, MAX_LIST_EVERY_S = 1, 3600
MIN_ASK_AFTER_S, MAX_ASK_AFTER_S = 1, 86_400

#: A day of class at 6 Mbit/s: the vendor says nothing about how large a file may be.
DEFAULT_MAX_FILE_BYTES = 64 * 1024**3

#: So much of the staging disk stays free for whatever else lies there, the database among it.
DEFAULT_MIN_FREE_BYTES = 2 * 1024**3

#: Less is a typing mistake.
MIN_ARCHIVE_BYTES = 1024

#: More files at once make each slower, and cost memory.
MAX_FILES_AT_ONCE = 64

#: Ten years: of an own bucket, whose files nobody deletes.
MAX_FILES_KEPT_HOURS = 87_600

#: Each is asked every few seconds while somebody looks.
MAX_CONSOLE_PEERS = 64

#: For the compose file, not for a process of ours.
_FOREIGN = frozenset({"TIW_CONSOLE_PUBLISH", "TIW_PUBLISH", "TIW_RECORDINGS", "TIW_TLS_PUBLISH"})

T = TypeVar("T")


class SettingsError(Exception):
    """Raised when a variable has a value that cannot work; the text names it and says what to do."""


class Address(Struct, frozen=True, kw_only=True):
    """Where a listener listens."""

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine reaches it."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"

    @property
    def from_here(self) -> "Address":
        """Where a program of this machine reaches what listens here: at one address, where it listens at all."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104 - to tell them
        return Address(host=host, port=self.port)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


class UnixAddress(Struct, frozen=True, kw_only=True):
    """Where a listener listens that is a file, for programs of this machine."""

    path: str

    @property
    def is_loopback(self) -> bool:
        """Only this machine reaches it."""
        return True

    def __str__(self) -> str:
        return f"unix:{self.path}"


_DEFAULT_HTTP: Address | UnixAddress = Address(host="127.0.0.1", port=8080)
_DEFAULT_CONSOLE: Address | None = Address(host="127.0.0.1", port=8090)


class Settings(Struct, frozen=True, kw_only=True):
    """All that the environment decides. See the table in README.md; `masked` shows them without secrets."""

    callback_keys: str | None = None
    callback_keys_file: Path | None = None
    allow_unsigned: frozenset[int] = frozenset()
    path_token: str | None = None
    http: Address | UnixAddress = _DEFAULT_HTTP
    admin: Address | None = None
    max_body_bytes: int = 1024 * 1024
    amqp_urls: tuple[str, ...] = ()
    database_url: str
    data_dir: Path = Path("var")
    spool_max_bytes: int = DEFAULT_SPOOL_MAX_BYTES
    consumers: tuple[str, ...] = ()
    retry_delays_s: tuple[float, ...] = DEFAULT_RETRY_DELAYS_S
    retention_days: int = 0
    stop_delay_s: float = 0.0
    vendor_secret_id: str | None = None
    vendor_secret_key: str | None = None
    vendor_site: Literal["china", "international"] = "china"
    vendor_endpoint: str | None = None
    reconcile_apps: frozenset[int] | None = None
    reconcile_list_every_s: float = 60.0
    reconcile_ask_after_s: float = 900.0
    register: Address | UnixAddress | None = None
    register_token: str | None = None
    log_format: Literal["console", "json"] = "json"
    notify: str | None = None
    notify_language: Literal["en", "zh", "both"] = "en"
    notify_templates: Path | None = None
    archive: str | None = None
    archive_s3_endpoint: str | None = None
    archive_s3_region: str | None = None
    archive_s3_style: Literal["virtual", "path"] | None = None
    archive_s3_key_id: str | None = None
    archive_s3_secret: str | None = None
    archive_hosts: str | None = None
    archive_networks: str | None = None
    archive_staging: Path = Path("var/staging")
    archive_at_once: int = 4
    archive_bytes_per_s: int | None = None
    archive_least_bytes_per_s: int = 64 * 1024
    archive_max_file_bytes: int = DEFAULT_MAX_FILE_BYTES
    archive_min_free_bytes: int = DEFAULT_MIN_FREE_BYTES
    files_kept_hours: float = 72.0
    console: Address | None = _DEFAULT_CONSOLE
    console_token: str | None = None
    console_read_token: str | None = None
    console_url: str | None = None
    console_peers: tuple[str, ...] = ()

    @property
    def is_embedded(self) -> bool:
        """Whether the embedded transport carries the events."""
        return not self.amqp_urls


#: Where `ingest` and `up` serve their health and metrics unless TIW_ADMIN says otherwise.
DEFAULT_ADMIN = Address(host="127.0.0.1", port=9080)


def read_settings(environ: Mapping[str, str], *, is_terminal: bool) -> Settings:
    """Build the Settings from `environ`. Empty variables count as unset. Raises `SettingsError`.

    Reads the files that `_FILE` variables name, once; TIW_CALLBACK_KEYS_FILE is left to whoever watches it.
    """
    environ = {name: value for name, value in environ.items() if value}
    data_dir = _read(environ, "TIW_DATA_DIR", _path, Path("var"))
    if "TIW_CALLBACK_KEYS" in environ and "TIW_CALLBACK_KEYS_FILE" in environ:
        raise SettingsError("TIW_CALLBACK_KEYS and TIW_CALLBACK_KEYS_FILE are both set: keep one of them")
    keys_file = _read(environ, "TIW_CALLBACK_KEYS_FILE", _path, None)
    settings = Settings(
        callback_keys=environ.get("TIW_CALLBACK_KEYS"),
        callback_keys_file=keys_file,
        allow_unsigned=_read(environ, "TIW_ALLOW_UNSIGNED", _app_ids, frozenset()),
        path_token=_read(environ, "TIW_PATH_TOKEN", _path_token, None),
        http=_read(environ, "TIW_HTTP", _http_address, _DEFAULT_HTTP),
        admin=_read(environ, "TIW_ADMIN", parse_address, None),
        max_body_bytes=_read(environ, "TIW_MAX_BODY_BYTES", _body_bytes, 1024 * 1024),
        amqp_urls=_read(environ, "TIW_AMQP_URL", _amqp_urls, ()),
        database_url=_read(environ, "TIW_DATABASE_URL", _database_url, _sqlite_url(data_dir)),
        data_dir=data_dir,
        spool_max_bytes=_read(environ, "TIW_SPOOL_MAX_BYTES", _spool_bytes, DEFAULT_SPOOL_MAX_BYTES),
        consumers=_read(environ, "TIW_CONSUMERS", _list, ()),
        retry_delays_s=_read(environ, "TIW_RETRY_DELAYS_S", _retry_delays_s, DEFAULT_RETRY_DELAYS_S),
        stop_delay_s=_read(environ, "TIW_STOP_DELAY_S", _stop_delay_s, 0.0),
        retention_days=_read(environ, "TIW_RETENTION_DAYS", _retention_days, 0),
        vendor_secret_id=_read(environ, "TIW_VENDOR_SECRET_ID", _vendor_secret, None),
        vendor_secret_key=_read(environ, "TIW_VENDOR_SECRET_KEY", _vendor_secret, None),
        vendor_site=_read(environ, "TIW_VENDOR_SITE", _vendor_site, "china"),
        vendor_endpoint=_read(environ, "TIW_VENDOR_ENDPOINT", _vendor_endpoint, None),
        reconcile_apps=_read(environ, "TIW_RECONCILE_APPS", _reconcile_apps, None),
        reconcile_list_every_s=_read(environ, "TIW_RECONCILE_LIST_EVERY_S", _list_every_s, 60.0),
        reconcile_ask_after_s=_read(environ, "TIW_RECONCILE_ASK_AFTER_S", _ask_after_s, 900.0),
        register=_read(environ, "TIW_REGISTER", _http_address, None),
        register_token=_read(environ, "TIW_REGISTER_TOKEN", _path_token, None),
        log_format=_read(environ, "TIW_LOG_FORMAT", _log_format, "console" if is_terminal else "json"),
        notify=_read(environ, "TIW_NOTIFY", str, None),
        notify_language=_read(environ, "TIW_NOTIFY_LANGUAGE", _notify_language, "en"),
        notify_templates=_read(environ, "TIW_NOTIFY_TEMPLATES", _path, None),
        archive=_read(environ, "TIW_ARCHIVE", _archive, None),
        archive_s3_endpoint=_read(environ, "TIW_ARCHIVE_S3_ENDPOINT", _s3_endpoint, None),
        archive_s3_region=_read(environ, "TIW_ARCHIVE_S3_REGION", _s3_region, None),
        archive_s3_style=_read(environ, "TIW_ARCHIVE_S3_STYLE", _s3_style, None),
        archive_s3_key_id=_read(environ, "TIW_ARCHIVE_S3_KEY_ID", _vendor_secret, None),
        archive_s3_secret=_read(environ, "TIW_ARCHIVE_S3_SECRET", _vendor_secret, None),
        archive_hosts=_read(environ, "TIW_ARCHIVE_HOSTS", _archive_hosts, None),
        archive_networks=_read(environ, "TIW_ARCHIVE_NETWORKS", _archive_networks, None),
        archive_staging=_read(environ, "TIW_ARCHIVE_STAGING", _path, data_dir / "staging"),
        archive_at_once=_read(environ, "TIW_ARCHIVE_AT_ONCE", _files_at_once, 4),
        archive_bytes_per_s=_read(environ, "TIW_ARCHIVE_BYTES_PER_S", _bytes_per_s, None),
        archive_least_bytes_per_s=_read(environ, "TIW_ARCHIVE_LEAST_BYTES_PER_S", _number_of_bytes, 64 * 1024),
        archive_max_file_bytes=_read(environ, "TIW_ARCHIVE_MAX_FILE_BYTES", _bytes_per_s, DEFAULT_MAX_FILE_BYTES),
        archive_min_free_bytes=_read(environ, "TIW_ARCHIVE_MIN_FREE_BYTES", _number_of_bytes, DEFAULT_MIN_FREE_BYTES),
        files_kept_hours=_read(environ, "TIW_FILES_KEPT_HOURS", _files_kept_hours, 72.0),
        console=_read(environ, "TIW_CONSOLE", _console, _DEFAULT_CONSOLE),
        console_token=_read(environ, "TIW_CONSOLE_TOKEN", _path_token, None),
        console_read_token=_read(environ, "TIW_CONSOLE_READ_TOKEN", _path_token, None),
        console_url=_read(environ, "TIW_CONSOLE_URL", _console_url, None),
        console_peers=_read(environ, "TIW_CONSOLE_PEERS", _console_peers, ()),
    )
    if settings.allow_unsigned and not settings.http.is_loopback and settings.path_token is None:
        raise SettingsError(
            "TIW_ALLOW_UNSIGNED beyond loopback needs TIW_PATH_TOKEN: unsigned, the address is the only secret"
        )
    if (settings.vendor_secret_id is None) != (settings.vendor_secret_key is None):
        there, missing = ("ID", "KEY") if settings.vendor_secret_key is None else ("KEY", "ID")
        raise SettingsError(
            f"TIW_VENDOR_SECRET_{there} is set and TIW_VENDOR_SECRET_{missing} is not: set both, or neither"
        )
    if settings.register is not None and not settings.register.is_loopback and settings.register_token is None:
        raise SettingsError("TIW_REGISTER beyond loopback needs TIW_REGISTER_TOKEN: whoever reaches it may register")
    if (settings.archive_s3_key_id is None) != (settings.archive_s3_secret is None):
        there, missing = ("KEY_ID", "SECRET") if settings.archive_s3_secret is None else ("SECRET", "KEY_ID")
        raise SettingsError(f"TIW_ARCHIVE_S3_{there} is set and TIW_ARCHIVE_S3_{missing} is not: set both, or neither")
    if settings.archive is not None and settings.archive.startswith("s3://") and settings.archive_s3_key_id is None:
        raise SettingsError("TIW_ARCHIVE is in S3: set TIW_ARCHIVE_S3_KEY_ID and TIW_ARCHIVE_S3_SECRET, too")
    if settings.console_read_token is not None and settings.console_read_token == settings.console_token:
        raise SettingsError("TIW_CONSOLE_READ_TOKEN is TIW_CONSOLE_TOKEN: who only looks needs a token of their own")
    return settings


def unknown_variables(environ: Mapping[str, str]) -> list[str]:
    """Return the TIW_ variables that nothing reads, such as misspelt ones."""
    return sorted(name for name in environ if name.startswith("TIW_") and name not in _KNOWN | _FOREIGN)


_SECRET = (
    *("TIW_PATH_TOKEN", "TIW_AMQP_URL", "TIW_DATABASE_URL", "TIW_CALLBACK_KEYS"),
    *("TIW_VENDOR_SECRET_ID", "TIW_VENDOR_SECRET_KEY", "TIW_REGISTER_TOKEN", "TIW_NOTIFY"),
    *("TIW_ARCHIVE_S3_KEY_ID", "TIW_ARCHIVE_S3_SECRET"),
    *("TIW_CONSOLE_TOKEN", "TIW_CONSOLE_READ_TOKEN"),
)
_KNOWN = frozenset(
    {
        *_SECRET,
        *(f"{name}_FILE" for name in _SECRET),
        "TIW_ALLOW_UNSIGNED",
        "TIW_HTTP",
        "TIW_ADMIN",
        "TIW_MAX_BODY_BYTES",
        "TIW_DATA_DIR",
        "TIW_SPOOL_MAX_BYTES",
        "TIW_CONSUMERS",
        "TIW_RETRY_DELAYS_S",
        "TIW_RETENTION_DAYS",
        "TIW_STOP_DELAY_S",
        "TIW_VENDOR_SITE",
        "TIW_VENDOR_ENDPOINT",
        "TIW_RECONCILE_APPS",
        "TIW_RECONCILE_LIST_EVERY_S",
        "TIW_RECONCILE_ASK_AFTER_S",
        "TIW_REGISTER",
        "TIW_LOG_FORMAT",
        "TIW_NOTIFY_LANGUAGE",
        "TIW_NOTIFY_TEMPLATES",
        "TIW_ARCHIVE",
        "TIW_ARCHIVE_S3_ENDPOINT",
        "TIW_ARCHIVE_S3_REGION",
        "TIW_ARCHIVE_S3_STYLE",
        "TIW_ARCHIVE_HOSTS",
        "TIW_ARCHIVE_NETWORKS",
        "TIW_ARCHIVE_STAGING",
        "TIW_ARCHIVE_AT_ONCE",
        "TIW_ARCHIVE_BYTES_PER_S",
        "TIW_ARCHIVE_LEAST_BYTES_PER_S",
        "TIW_ARCHIVE_MAX_FILE_BYTES",
        "TIW_ARCHIVE_MIN_FREE_BYTES",
        "TIW_FILES_KEPT_HOURS",
        "TIW_CONSOLE",
        "TIW_CONSOLE_URL",
        "TIW_CONSOLE_PEERS",
    }
)


def _read(environ: Mapping[str, str], name: str, parse: Callable[[str], T], default: T) -> T:
    value = environ.get(name)
    if name in _SECRET and f"{name}_FILE" in environ:
        if value is not None:
            raise SettingsError(f"{name} and {name}_FILE are both set: keep one of them")
        file = environ[f"{name}_FILE"]
        try:
            value = _path(file).read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:
            raise SettingsError(f"{name}_FILE names {file}, which cannot be read: {error}") from error
    if value is None:
        return default
    try:
        return parse(value)
    except ValueError as error:
        raise SettingsError(f"{name} {error}") from error


def _list(value: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in value.split(",") if part.strip())


def _path(value: str) -> Path:
    try:
        return Path(value).expanduser()
    except RuntimeError:
        raise ValueError(f"begins with ~ and no user of this system, or one without a home: {value!r}") from None


def _app_ids(value: str) -> frozenset[int]:
    if not all(re.fullmatch(r"[0-9]{1,18}", part) for part in _list(value)):
        raise ValueError("must be SdkAppIds separated by commas; 0 stands for callbacks without one")
    return frozenset(int(part) for part in _list(value))


def is_token(value: str) -> bool:
    """Say whether a text is long enough for a token, and has only characters that stay as they are in an address."""
    return len(value) >= MIN_PATH_TOKEN_CHARACTERS and re.fullmatch(r"[A-Za-z0-9._~-]+", value) is not None


def _path_token(value: str) -> str:
    if not is_token(value):
        raise ValueError(
            f"must be at least {MIN_PATH_TOKEN_CHARACTERS} characters of A-Z a-z 0-9 . _ ~ -: "
            "make one with `openssl rand -hex 16`"
        )
    return value


def parse_address(value: str) -> Address:
    """Return the address that HOST:PORT names. Raises ValueError, with a sentence for the user, if it names none."""
    split = _split(f"//{value}")
    try:
        port = split.port
    except ValueError:
        port = None
    if split.hostname is None or port is None or split.username is not None or split.path or split.query:
        raise ValueError(f"must be HOST:PORT, such as 127.0.0.1:8080 or [::1]:8080, not {value!r}")
    return Address(host=split.hostname, port=port)


def _http_address(value: str) -> Address | UnixAddress:
    if not value.startswith("unix:"):
        try:
            return parse_address(value)
        except ValueError as error:
            raise ValueError(f"{error}; or a unix socket, such as unix:/run/tiw/ingest.sock") from None
    path = value.removeprefix("unix:")
    if not path.startswith("/") or path.endswith("/"):
        raise ValueError(f"must name a unix socket by its whole path, such as unix:/run/tiw/ingest.sock, not {value!r}")
    length = len(os.fsencode(path))
    if length > MAX_UNIX_PATH_BYTES:
        raise ValueError(
            f"must be shorter: the path of a unix socket has at most {MAX_UNIX_PATH_BYTES} bytes, this one {length}"
        )
    return UnixAddress(path=path)


def _body_bytes(value: str) -> int:
    if not re.fullmatch(r"[0-9]{1,12}", value) or not 1 <= int(value) <= MAX_BODY_BYTES_LIMIT:
        raise ValueError(f"must be a number of bytes from 1 to {MAX_BODY_BYTES_LIMIT}, not {value!r}")
    return int(value)


def _spool_bytes(value: str) -> int:
    if not re.fullmatch(r"[0-9]{1,15}", value) or int(value) < MIN_SPOOL_BYTES:
        raise ValueError(f"must be a number of bytes from {MIN_SPOOL_BYTES}, not {value!r}")
    return int(value)


def _amqp_urls(value: str) -> tuple[str, ...]:
    if _is_cut_short(value):
        raise ValueError(_UNESCAPED)
    urls = _list(value)
    # None at all, as in an empty file, must not quietly mean the embedded transport.
    if not urls or not all(_split(url).scheme in ("amqp", "amqps") and _split(url).hostname for url in urls):
        # Never the value: it holds a password.
        raise ValueError(
            "must be amqp://USER:PASSWORD@HOST:PORT/VHOST, or several, separated by commas; "
            "a comma in a password is %2C"
        )
    return urls


#: Never the value: it holds a password.
_UNESCAPED = (
    "has a user or a password with one of / ? # @ [ ] in it: write it percent-encoded, "
    "as %2F, %3F, %23, %40, %5B and %5D"
)


def _is_cut_short(url: str) -> bool:
    """Say whether a character of a password ends the host's part of a URL before its time."""
    try:
        netloc = urlsplit(url).netloc
    except ValueError:
        return "@" in url  # a bracket in front of it
    behind = url.partition("://")[2][len(netloc) :]
    # A user, a colon and something that is no port; the rest of the password stands where a path begins.
    return "@" not in netloc and "@" in behind and ":" in netloc and not netloc.rpartition(":")[2].isdigit()


def _database_url(value: str) -> str:
    split = _split(value)
    if value.startswith("postgresql+asyncpg:") and (not split.scheme or split.netloc.count("@") > 1):
        raise ValueError(_UNESCAPED)
    if split.scheme == "postgresql+asyncpg" and (split.hostname or "host=" in split.query):
        return value
    if split.scheme == "sqlite+aiosqlite" and split.path:
        return value
    if split.scheme in ("postgresql", "postgres", "postgresql+psycopg", "postgresql+psycopg2"):
        raise ValueError("must start with postgresql+asyncpg://, the driver that is used here")
    raise ValueError(
        "must be postgresql+asyncpg://USER:PASSWORD@HOST:PORT/DATABASE or sqlite+aiosqlite:///absolute/path"
    )


def _sqlite_url(data_dir: Path) -> str:
    # In a URL a question mark ends the path; `Store` reads it like this.
    path = str(data_dir.absolute() / "store.db").replace("%", "%25").replace("?", "%3F")
    return f"sqlite+aiosqlite:///{path}"


def _retry_delays_s(value: str) -> tuple[float, ...]:
    try:
        delays_s = tuple(float(part) for part in _list(value))
    except ValueError:
        delays_s = ()
    in_range = all(MIN_RETRY_DELAY_S <= delay_s <= MAX_RETRY_DELAY_S for delay_s in delays_s)
    if not delays_s or not in_range or list(delays_s) != sorted(set(delays_s)):
        raise ValueError(f"must be growing numbers of seconds separated by commas, such as 1,5,30, not {value!r}")
    return delays_s


def _retention_days(value: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", value) or int(value) > MAX_RETENTION_DAYS:
        raise ValueError(f"must be a number of days up to {MAX_RETENTION_DAYS}, or 0 to keep all, not {value!r}")
    return int(value)


def _stop_delay_s(value: str) -> float:
    if not re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,3})?", value) or float(value) > MAX_STOP_DELAY_S:
        raise ValueError(f"must be a number of seconds up to {MAX_STOP_DELAY_S}, not {value!r}")
    return float(value)


def _vendor_secret(value: str) -> str:
    if not re.fullmatch(r"[\x21-\x7e]{1,256}", value):
        # Never the value.
        raise ValueError("must be 1 to 256 characters without spaces, as the vendor's console shows it: copy it anew")
    return value


def _vendor_site(value: str) -> Literal["china", "international"]:
    if value not in ("china", "international"):
        raise ValueError(f"must be china or international, not {value!r}")
    return cast("Literal['china', 'international']", value)


def _vendor_endpoint(value: str) -> str:
    from vendor_api import parse_endpoint  # noqa: PLC0415 - for those who ask the vendor

    parse_endpoint(value)
    return value


def _reconcile_apps(value: str) -> frozenset[int]:
    apps = _app_ids(value)
    if not apps or 0 in apps:
        raise ValueError("must be SdkAppIds separated by commas: the vendor is asked about applications")
    return apps


def _list_every_s(value: str) -> float:
    return _seconds(value, MIN_LIST_EVERY_S, MAX_LIST_EVERY_S)


def _ask_after_s(value: str) -> float:
    return _seconds(value, MIN_ASK_AFTER_S, MAX_ASK_AFTER_S)


def _seconds(value: str, least: int, most: int) -> float:
    if not re.fullmatch(r"[0-9]{1,5}(\.[0-9]{1,3})?", value) or not least <= float(value) <= most:
        raise ValueError(f"must be a number of seconds from {least} to {most}, not {value!r}")
    return float(value)


def _log_format(value: str) -> Literal["console", "json"]:
    if value not in ("console", "json"):
        raise ValueError(f"must be console or json, not {value!r}")
    return cast("Literal['console', 'json']", value)


def _notify_language(value: str) -> Literal["en", "zh", "both"]:
    if value not in ("en", "zh", "both"):
        raise ValueError(f"must be en, zh or both, not {value!r}")
    return cast("Literal['en', 'zh', 'both']", value)


def _archive(value: str) -> str:
    from archive import parse_target  # noqa: PLC0415 - for those who archive

    parse_target(value)
    return value


def _archive_hosts(value: str) -> str:
    from archive import parse_hosts  # noqa: PLC0415 - for those who archive

    parse_hosts(value)
    return value


def _archive_networks(value: str) -> str:
    from archive import parse_networks  # noqa: PLC0415 - for those who archive

    parse_networks(value)
    return value


def _s3_endpoint(value: str) -> str:
    split = _split(value)
    if (
        split.scheme not in ("http", "https")
        or not split.hostname
        or "@" in split.netloc
        or split.path not in ("", "/")
        or split.query
    ):
        raise ValueError("must be https://HOST or http://HOST:PORT, without the bucket and without a password")
    return value.rstrip("/")


def _s3_region(value: str) -> str:
    if not re.fullmatch(r"[a-z0-9-]{1,63}", value):
        raise ValueError(f"must be a region such as ap-guangzhou or us-east-1, not {value!r}")
    return value


def _s3_style(value: str) -> Literal["virtual", "path"]:
    if value not in ("virtual", "path"):
        raise ValueError(
            f"must be virtual (the bucket in the host's name, as COS and AWS want it) or path (others), not {value!r}"
        )
    return cast("Literal['virtual', 'path']", value)


def _files_at_once(value: str) -> int:
    if not re.fullmatch(r"[0-9]{1,3}", value) or not 1 <= int(value) <= MAX_FILES_AT_ONCE:
        raise ValueError(f"must be a number from 1 to {MAX_FILES_AT_ONCE}, not {value!r}")
    return int(value)


def _bytes_per_s(value: str) -> int:
    if not re.fullmatch(r"[0-9]{1,15}", value) or int(value) < MIN_ARCHIVE_BYTES:
        raise ValueError(f"must be a number of bytes from {MIN_ARCHIVE_BYTES}, not {value!r}")
    return int(value)


def _number_of_bytes(value: str) -> int:
    if not re.fullmatch(r"[0-9]{1,15}", value):
        raise ValueError(f"must be a number of bytes with at most 15 digits, such as 2147483648, not {value!r}")
    return int(value)


def _files_kept_hours(value: str) -> float:
    if not re.fullmatch(r"[0-9]{1,5}(\.[0-9]{1,3})?", value) or not 1 <= float(value) <= MAX_FILES_KEPT_HOURS:
        raise ValueError(f"must be a number of hours from 1 to {MAX_FILES_KEPT_HOURS}, not {value!r}")
    return float(value)


def _console(value: str) -> Address | None:
    if value == "off":
        return None
    try:
        return parse_address(value)
    except ValueError as error:
        raise ValueError(f"{error}; or off") from None


def _console_url(value: str) -> str:
    split = _split(value)
    if split.scheme not in ("http", "https") or not _names_a_host_alone(split):
        # Never the value: somebody may have put a password into it.
        raise ValueError(
            "must be the address that browsers use, https://HOST or http://HOST:PORT, without a path and a password"
        )
    return value.rstrip("/")


def _console_peers(value: str) -> tuple[str, ...]:
    peers = _list(value)
    if len(peers) > MAX_CONSOLE_PEERS:
        raise ValueError(f"must name at most {MAX_CONSOLE_PEERS} admin listeners, not {len(peers)}")
    for peer in peers:
        split = _split(peer)
        if split.scheme != "http" or not _names_a_host_alone(split) or split.port is None:
            raise ValueError(
                "must be admin listeners separated by commas, each http://HOST:PORT, such as http://ingest:9080, "
                "with a ? behind one that need not run"
            )
    return tuple(dict.fromkeys(f"{peer.rstrip('/?')}{'?' if peer.endswith('?') else ''}" for peer in peers))


def _names_a_host_alone(split: SplitResult) -> bool:
    """Say whether a URL has a host, a port if it has one that can be, and nothing else."""
    try:
        port = split.port
    except ValueError:
        return False
    return (
        bool(re.fullmatch(r"[A-Za-z0-9._:-]+", split.hostname or ""))
        and "@" not in split.netloc
        and port != 0
        and split.path in ("", "/")
        and not split.query
        and not split.fragment
    )


def _split(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError:
        return SplitResult("", "", "", "", "")


def masked(settings: Settings, *, reveal: bool = False) -> dict[str, object]:
    """Return the settings as JSON values, with secrets masked; `reveal` shows the keys and the path token."""
    values = msgspec.to_builtins(settings, str_keys=True, enc_hook=str)
    values["allow_unsigned"] = sorted(settings.allow_unsigned)
    values["http"] = str(settings.http)
    values["admin"] = None if settings.admin is None else str(settings.admin)
    values["amqp_urls"] = [_without_password(url) for url in settings.amqp_urls]
    values["database_url"] = _without_password(settings.database_url)
    # Their addresses are their passwords. What is wrong with them says who uses them.
    values["notify"] = None if settings.notify is None else _kinds_alone(settings.notify)
    if not reveal:
        values["callback_keys"] = None if settings.callback_keys is None else "***"
        values["path_token"] = None if settings.path_token is None else "***"
    values["reconcile_apps"] = None if settings.reconcile_apps is None else sorted(settings.reconcile_apps)
    values["register"] = None if settings.register is None else str(settings.register)
    values["register_token"] = None if settings.register_token is None else "***"
    values["vendor_secret_id"] = None if settings.vendor_secret_id is None else "***"
    values["vendor_secret_key"] = None if settings.vendor_secret_key is None else "***"
    values["archive_s3_key_id"] = None if settings.archive_s3_key_id is None else "***"
    values["archive_s3_secret"] = None if settings.archive_s3_secret is None else "***"
    values["console"] = "off" if settings.console is None else str(settings.console)
    values["console_token"] = None if settings.console_token is None else "***"
    values["console_read_token"] = None if settings.console_read_token is None else "***"
    return cast("dict[str, object]", values)


def _kinds_alone(channels: str) -> list[str]:
    lines = [line for line in channels.splitlines() if not line.lstrip().startswith("#")]
    entries = [entry.partition("=") for line in lines for entry in line.split(",") if entry.strip()]
    return [f"{kind.strip()}=***" if equals and kind.strip().isalpha() else "***" for kind, equals, _ in entries]


def _without_password(url: str) -> str:
    # Up to the last @: a password may hold one although it should not.
    masked_authority = re.sub(r"//([^:@/]*):.*@", r"//\1:***@", url, flags=re.DOTALL)
    return re.sub(r"([?&][^=&]*pass[^=&]*=)[^&]*", r"\1***", masked_authority, flags=re.IGNORECASE)


class UsageError(Exception):
    """Raised when what was asked for cannot be done as asked; ends with exit code 2."""


class FailedError(Exception):
    """Raised when what was asked for is absent or failed; ends with exit code 1."""
