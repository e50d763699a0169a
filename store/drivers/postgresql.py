"""PostgreSQL through asyncpg, or a pooler such as PgBouncer in front of it: connecting, and what its errors mean."""

import asyncio
import secrets
from collections.abc import Mapping
from typing import Any, Final

import asyncpg
import structlog
from sqlalchemy import URL, create_engine, event
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from store.connection import AsyncEngine
from store.direct.postgresql import PostgresDirect
from store.drivers.driver import failure_without_code, is_out_of_reach, pool_options
from store.errors import Failure, StoreError
from store.statements import Dialect, postgresql

dialect: Dialect = postgresql

ERRORS: tuple[type[Exception], ...] = (
    SQLAlchemyError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    OSError,
    TimeoutError,
)

CONNECT_TIMEOUT_S: Final = 5.0

_log = structlog.get_logger()

#: Parameters of a URL that asyncpg wants as numbers: their names there, and what they are.
_NUMBERS: dict[str, tuple[str, type[int] | type[float]]] = {
    "statement_cache_size": ("statement_cache_size", int),
    "max_cached_statement_lifetime": ("max_cached_statement_lifetime", int),
    "max_cacheable_statement_size": ("max_cacheable_statement_size", int),
    "prepared_statement_cache_size": ("prepared_statement_cache_size", int),
    "command_timeout": ("command_timeout", float),
    "timeout": ("timeout", float),
    "connect_timeout": ("timeout", float),
}

#: Parameters of libpq that asyncpg reads from a URL of its own, or hands to the server.
_OF_LIBPQ = frozenset(
    {
        *("host", "port", "user", "password", "dbname", "passfile", "krbsrvname", "gsslib"),
        *("application_name", "options", "target_session_attrs"),
        *("sslmode", "sslcert", "sslkey", "sslrootcert", "sslcrl", "sslpassword"),
        *("ssl_min_protocol_version", "ssl_max_protocol_version"),
    }
)


def open_engine(
    url: URL, *, line: asyncio.Lock, statement_timeout_s: float
) -> tuple[AsyncEngine, PostgresDirect | None]:
    """See `Driver`.

    The URL takes the parameters of libpq that asyncpg knows, those of asyncpg that are numbers, and `pool_size`.
    """
    del line
    query = {name: value if isinstance(value, str) else ",".join(value) for name, value in url.query.items()}
    unknown = sorted(query.keys() - _NUMBERS.keys() - _OF_LIBPQ - {"ssl", "pool_size"})
    if unknown:
        raise StoreError(
            f"the database's URL has parameters that are not known here: {unknown}; "
            f"known are {', '.join(sorted({*_NUMBERS, *_OF_LIBPQ, 'ssl', 'pool_size'}))}"
        )
    numbers = {argument: _number(query, name, kind) for name, (argument, kind) in _NUMBERS.items() if name in query}
    dsn = {name: value for name, value in query.items() if name in _OF_LIBPQ}
    if "ssl" in query:
        # As SQLAlchemy calls libpq's sslmode.
        dsn.setdefault("sslmode", {"true": "require", "false": "disable"}.get(query["ssl"].lower(), query["ssl"]))
    server_settings = {} if "application_name" in dsn else {"application_name": "tiw"}
    arguments: dict[str, Any] = {
        "dsn": URL.create("postgresql", query=dsn).render_as_string(hide_password=False),
        "timeout": CONNECT_TIMEOUT_S,
        # The server gives up first, so that the connection stays usable; the client's own time-out is for a
        # server that does not answer at all.
        "command_timeout": statement_timeout_s + 1,
        **numbers,
        "server_settings": {
            **server_settings,
            "statement_timeout": str(round(statement_timeout_s * 1000)),
            "idle_in_transaction_session_timeout": str(round(statement_timeout_s * 4000)),
        },
    }
    options = pool_options()
    if "pool_size" in query:
        options["pool_size"] = max(1, int(_number(query, "pool_size", int)))
    engine = AsyncEngine(create_engine(url.set(query={}), **options, pool_pre_ping=True, connect_args=arguments))
    pooler = _Pooler(server_settings)
    event.listen(engine.sync_engine, "do_connect", pooler.connect)
    event.listen(engine.sync_engine, "handle_error", pooler.note_error)
    if numbers.get("statement_cache_size") == 0:
        return engine, None  # nothing is to be prepared
    # The other half of the connections stays for everything else.
    return engine, PostgresDirect(engine, is_pooled=lambda: pooler.is_there, most_idle=options["pool_size"] // 2)


def _number(query: Mapping[str, str], name: str, kind: type[int] | type[float]) -> float:
    try:
        return kind(query[name])
    except ValueError:
        raise StoreError(f"the database's URL has a {name} that is no number: correct it") from None


class _Pooler:
    """What stands between us and PostgreSQL, as far as connecting has shown.

    PgBouncer refuses parameters of a session at the start of a connection, and where it pools transactions, one's
    prepared statements are another's: https://www.pgbouncer.org/config.html#ignore_startup_parameters and
    https://docs.sqlalchemy.org/en/20/dialects/postgresql.html#prepared-statement-name-with-pgbouncer. Once either was
    seen, connections are made without both; the client's own time-out then ends a statement that takes too long.
    """

    def __init__(self, server_settings: Mapping[str, str]) -> None:
        self._server_settings = server_settings
        self.is_there = False

    def connect(self, dialect: Any, _: object, arguments: Any, parameters: dict[str, Any]) -> Any:
        """Connect, and once more in the way that a pooler needs."""
        if not self.is_there:
            try:
                return dialect.connect(*arguments, **parameters)
            except (asyncpg.PostgresError, DBAPIError, dialect.dbapi.Error) as error:
                if "startup parameter" not in str(error):
                    raise
                self._found()
        return dialect.connect(
            *arguments,
            **{
                **parameters,
                "server_settings": dict(self._server_settings),
                "statement_cache_size": 0,
                "prepared_statement_cache_size": 0,
                "prepared_statement_name_func": lambda: f"__tiw_{secrets.token_hex(8)}__",
            },
        )

    def note_error(self, context: Any) -> None:
        """Take note of an error that only a pooler of transactions makes; the connection is not used again.

        Nor is one to a server that is read-only: after a failover the address may lead to another one.
        """
        sqlstate = _sqlstate_of(cause_of(context.original_exception))
        if sqlstate in _POOLER_SQLSTATES:
            self._found()
        if sqlstate in _POOLER_SQLSTATES or sqlstate == _READ_ONLY_SQLSTATE:
            context.is_disconnect = True

    def _found(self) -> None:
        if not self.is_there:
            self.is_there = True
            _log.info("database_pooler_found", consequence="statements are not prepared for the next transaction")


# https://www.postgresql.org/docs/current/errcodes-appendix.html
#: invalid_sql_statement_name, duplicate_prepared_statement: another session's statements are on this connection.
_POOLER_SQLSTATES = frozenset({"26000", "42P05"})
#: read_only_sql_transaction: this server is a standby now
_READ_ONLY_SQLSTATE = "25006"
_REPEAT_SQLSTATES = frozenset(
    {
        "40001",  # serialization_failure
        "40P01",  # deadlock_detected
        "0A000",  # cached plan must not change result type: a migration ran meanwhile
        *_POOLER_SQLSTATES,
    }
)
_AWAY_SQLSTATE_CLASSES = (
    "08",  # connection exception
    _READ_ONLY_SQLSTATE,
    "25P03",  # idle_in_transaction_session_timeout
    "28",  # invalid authorization: the operator mends it without a restart of ours
    "3D",  # the database does not exist (yet)
    "3F",  # no schema of the search_path exists
    "42501",  # insufficient_privilege: the operator mends it too
    "53",  # insufficient resources: connections, disk, memory
    "55P03",  # lock_not_available
    "57",  # operator intervention: shutdown, start-up, cancelled by a time-out
    "58",  # system error
    "F0",  # configuration file error
    "XX",  # internal error, a damaged table or index included
)
_NO_SCHEMA_SQLSTATES = frozenset({"42P01", "42703"})  # undefined_table, undefined_column


def failure_of(error: BaseException) -> Failure:
    """See `Driver`."""
    cause = cause_of(error)
    if is_out_of_reach(cause):
        return Failure.AWAY
    sqlstate = _sqlstate_of(cause)
    if sqlstate in _REPEAT_SQLSTATES:
        return Failure.REPEAT
    if sqlstate in _NO_SCHEMA_SQLSTATES:
        return Failure.NO_SCHEMA
    if sqlstate:
        return Failure.AWAY if sqlstate.startswith(_AWAY_SQLSTATE_CLASSES) else Failure.DEFECT
    if isinstance(cause, asyncpg.exceptions.ClientConfigurationError):
        return Failure.AWAY
    return failure_without_code(error, cause)


def cause_of(error: BaseException) -> BaseException:
    """See `Driver`: SQLAlchemy wraps the errors of asyncpg twice."""
    if not isinstance(error, DBAPIError) or error.orig is None:
        return error
    return error.orig.__cause__ if isinstance(error.orig.__cause__, asyncpg.PostgresError) else error.orig


def _sqlstate_of(cause: BaseException) -> str | None:
    """Return PostgreSQL's code of an error, or None."""
    return getattr(cause, "sqlstate", None)
