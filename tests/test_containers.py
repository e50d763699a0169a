"""What the compose files, the Dockerfile and .dockerignore promise, read from the files themselves."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from broker import BUILT_IN_CONSUMERS
from tiw.__main__ import PACKAGES
from tiw.settings import read_settings, unknown_variables

ROOT = Path(__file__).resolve().parent.parent
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if service["image"] == "localhost/tiw-callbacks"}
BY_DEFAULT = {name: service for name, service in SERVICES.items() if "profiles" not in service}
SMALL: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.small.yml").read_text(encoding="utf-8"))
PIPELINE: dict[str, Any] = SMALL["services"]["pipeline"]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")


def variables_of_the_user() -> set[str]:
    """Return the variables that the compose file takes from the user's environment or .env."""
    return set(re.findall(r"\$\{(\w+)", (ROOT / "docker-compose.yml").read_text(encoding="utf-8")))


def unset(volumes: Sequence[str]) -> list[str]:
    """Return volumes as they are where the user has set no variable."""
    return [re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", volume) for volume in volumes]


def resolved(environment: dict[str, Any], given: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return what a container gets where the user has set nothing but `given`."""
    of_the_user = given or {}

    def value_of(match: re.Match[str]) -> str:
        name, or_if_empty, default = match.groups()
        value = of_the_user.get(name)
        return default if value is None or (or_if_empty and not value) else value

    return {name: re.sub(r"\$\{(\w+)(:?)-([^}]*)\}", value_of, str(value)) for name, value in environment.items()}


@pytest.mark.parametrize("consumer", [consumer.consumer for consumer in BUILT_IN_CONSUMERS])
def test_every_built_in_consumer_has_a_service_of_its_own(consumer: str) -> None:
    service = SERVICES[f"worker-{consumer.replace('_', '-')}"]
    assert service["command"] == ["work", consumer]
    assert "container_name" not in service, "a fixed name cannot be scaled"


def test_there_is_no_worker_for_a_consumer_that_does_not_exist() -> None:
    workers = {name.removeprefix("worker-").replace("-", "_") for name in SERVICES if name.startswith("worker-")}
    assert workers == {consumer.consumer for consumer in BUILT_IN_CONSUMERS}


def test_only_callbacks_and_the_console_are_published_and_only_to_this_host() -> None:
    ports = {name: service["ports"] for name, service in BY_DEFAULT.items() if "ports" in service}
    assert ports == {
        "ingest": ["${TIW_PUBLISH:-127.0.0.1:8080}:8080"],
        "console": ["${TIW_CONSOLE_PUBLISH:-127.0.0.1:8090}:8090"],
    }
    assert not [name for name, service in SERVICES.items() if service.get("network_mode") == "host"]


def test_broker_and_database_are_on_the_inside_only() -> None:
    assert COMPOSE["networks"]["inside"] == {"internal": True}
    assert SERVICES["rabbitmq"]["networks"] == SERVICES["postgres"]["networks"] == ["inside"]


def test_our_containers_run_without_root_and_cannot_write_their_image() -> None:
    assert re.findall(r"^USER (.+)$", DOCKERFILE, re.MULTILINE) == ["10001:10001"]
    for name, service in OURS.items():
        assert (service["user"], service["read_only"], service["cap_drop"]) == ("10001:10001", True, ["ALL"]), name


def test_no_service_is_given_more_rights() -> None:
    for name, service in SERVICES.items():
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert not {"privileged", "cap_add", "pid", "ipc"} & set(service), name
        assert str(service.get("user", "")).split(":", maxsplit=1)[0] not in ("0", "root"), name


def test_every_service_has_limits_and_bounded_logs() -> None:
    for name, service in (*SERVICES.items(), ("pipeline", PIPELINE)):
        assert "mem_limit" in service, name
        assert 0 < service["cpus"] <= 1, f"{name}: Docker refuses more than the host has, and a host may have one"
        assert "max-size" in service["logging"]["options"], name
    for name, service in (*OURS.items(), ("pipeline", PIPELINE)):
        assert "pids_limit" in service, name


def test_any_service_can_be_restarted_alone_and_with_all_others() -> None:
    assert not [name for name, service in SERVICES.items() if "depends_on" in service], (
        "podman restarts no such service"
    )


def test_what_waits_for_a_password_ends_when_it_is_told_to() -> None:
    for script in (
        (ROOT / "deploy/rabbitmq/start.sh").read_text(encoding="utf-8"),
        SERVICES["postgres"]["entrypoint"][2],
        (ROOT / "deploy/image/tiw").read_text(encoding="utf-8"),
    ):
        assert re.search(r"trap 'exit 143' (INT )?TERM.*while \[ ! -s .*exec ", script, re.DOTALL)


def test_no_password_stands_in_the_files() -> None:
    settings = {name: value for service in SERVICES.values() for name, value in service.get("environment", {}).items()}
    secrets = {name for name in settings if re.search(r"PASS|SECRET|TOKEN|_URL|KEYS", name)}
    given = {name: value for name, value in resolved({name: settings[name] for name in secrets}).items() if value}
    assert given == {
        "TIW_AMQP_URL_FILE": "/secrets/broker/amqp_url",
        "TIW_DATABASE_URL_FILE": "/secrets/database/database_url",
        "TIW_CONSOLE_TOKEN_FILE": "/secrets/console/token",
        "POSTGRES_PASSWORD_FILE": "/secrets/database/password",
    }


def test_the_broker_has_a_user_of_its_own_and_no_guest() -> None:
    start = (ROOT / "deploy/rabbitmq/start.sh").read_text(encoding="utf-8")
    assert SERVICES["rabbitmq"]["entrypoint"] == ["sh", "/etc/rabbitmq/start.sh"]
    assert "RABBITMQ_DEFAULT_USER=tiw" in start
    settings = (ROOT / "deploy/rabbitmq/tiw.conf").read_text(encoding="utf-8")
    assert not re.search(r"^[^#\n]*(guest|default_pass|load_definitions)", settings, re.MULTILINE)


@pytest.mark.parametrize("name", sorted(OURS))
def test_every_variable_that_a_container_of_ours_gets_is_one_that_something_reads(name: str) -> None:
    assert unknown_variables(OURS[name].get("environment", {})) == []


@pytest.mark.parametrize("name", sorted(set(OURS) - {"secrets"}))
def test_a_container_of_ours_starts_with_no_setting_of_the_users(name: str, tmp_path: Path) -> None:
    environment = resolved(OURS[name]["environment"])
    for variable, content in {
        "TIW_AMQP_URL_FILE": "amqp://tiw:secret@rabbitmq:5672/",
        "TIW_DATABASE_URL_FILE": "postgresql+asyncpg://tiw:secret@postgres:5432/tiw",
        "TIW_CONSOLE_TOKEN_FILE": "0123456789abcdef0123456789abcdef",
    }.items():
        if variable in environment:
            (tmp_path / variable).write_text(content, encoding="utf-8")
            environment[variable] = str(tmp_path / variable)
    settings = read_settings(environment, is_terminal=False)
    assert settings.is_embedded == (name == "migrate"), "whatever carries events here does so over the broker"


@pytest.mark.parametrize("name", sorted(set(OURS) - {"secrets"}))
def test_a_broker_and_a_database_of_the_users_take_the_place_of_ours(name: str) -> None:
    given = {
        "TIW_AMQP_URL_FILE": "",
        "TIW_AMQP_URL": "amqps://tiw:secret@one:5671/,amqps://tiw:secret@two:5671/",
        "TIW_DATABASE_URL_FILE": "",
        "TIW_DATABASE_URL": "postgresql+asyncpg://tiw:secret@elsewhere/tiw",
        "TIW_CONSOLE_TOKEN_FILE": "",
        "TIW_CONSOLE_TOKEN": "0123456789abcdef0123456789abcdef",
    }
    settings = read_settings(resolved(OURS[name]["environment"], given), is_terminal=False)
    assert (settings.amqp_urls == ()) == (name == "migrate")
    assert settings.database_url.startswith("sqlite") == (name == "ingest")


def test_every_setting_of_the_user_is_explained_in_env_example() -> None:
    explained = re.findall(r"^#(\w+)=", (ROOT / ".env.example").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(explained) == sorted(variables_of_the_user())
    assert unknown_variables(dict.fromkeys(explained, "")) == []


def test_what_keeps_data_keeps_it_in_a_named_volume() -> None:
    mounted = {
        volume.split(":")[0]
        for service in SERVICES.values()
        for volume in unset(service.get("volumes", []))
        if not volume.startswith("./")
    }
    assert mounted == set(COMPOSE["volumes"])


def test_folders_and_files_that_are_mounted_are_in_the_repository_and_read_only() -> None:
    for service in SERVICES.values():
        for volume in service.get("volumes", []):
            source, target, *options = unset([volume])[0].split(":")
            if source.startswith("./") and source != "./certs":
                assert (ROOT / source).exists(), source
            if source.startswith("./"):
                assert options[0].startswith("ro"), target


def test_who_speaks_to_the_outside_holds_no_callback_key() -> None:
    notify = SERVICES["notify"]
    assert notify["profiles"] == ["keep"]
    assert not [name for name in notify["environment"] if name.startswith("TIW_CALLBACK")]
    assert not [volume for volume in notify["volumes"] if volume.startswith(("./keys", "ingest-data"))]
    # And the other way round: only who tells people knows where, and the tools.
    knowing = {name for name, service in OURS.items() if "TIW_NOTIFY" in service.get("environment", {})}
    assert knowing == {"notify", "tiw"}


def test_the_console_has_no_callback_key_and_nothing_of_the_vendors_and_its_token_has_who_answers_it() -> None:
    console = SERVICES["console"]
    assert console["networks"] == ["outside", "inside"], "a network that leads nowhere publishes no port"
    withheld = r"TIW_(CALLBACK|ALLOW|PATH_TOKEN|VENDOR|REGISTER|NOTIFY)"
    assert not [name for name in console["environment"] if re.match(withheld, name)]
    assert not [volume for volume in console["volumes"] if re.match(r"\./(keys|vendor|channels)|ingest-data", volume)]
    assert "recordings:/recordings:ro" in unset(console["volumes"])
    knowing = {name for name, service in OURS.items() if "TIW_CONSOLE_TOKEN" in service.get("environment", {})}
    assert knowing == {"ingest", "console", "tiw"}
    mounted = {name for name, service in OURS.items() if "console-secret:/secrets/console:ro" in service["volumes"]}
    assert mounted == knowing


def test_the_console_asks_every_service_and_those_of_a_profile_need_not_run() -> None:
    peers = read_settings(
        resolved({"TIW_CONSOLE_PEERS": SERVICES["console"]["environment"]["TIW_CONSOLE_PEERS"]}), is_terminal=False
    ).console_peers
    asked = set(OURS) - {"secrets", "migrate", "console", "tiw"}
    assert set(peers) == {f"http://{name}:9080{'' if name in BY_DEFAULT else '?'}" for name in asked}
    for name in asked:
        assert SERVICES[name]["environment"]["TIW_ADMIN"] == "0.0.0.0:9080", name
        assert "inside" in SERVICES[name]["networks"], name
        assert not any(":9080" in port for port in SERVICES[name].get("ports", [])), name


def test_only_what_archives_and_the_console_have_the_keys_of_the_bucket() -> None:
    archive = SERVICES["archive"]
    assert (archive["profiles"], archive["networks"]) == (["keep"], ["outside", "inside"])
    assert "ports" not in archive
    assert not [name for name in archive["environment"] if re.match("TIW_(CALLBACK|PATH_TOKEN|VENDOR|NOTIFY)", name)]
    knowing = {
        name
        for name, service in OURS.items()
        if any(variable.startswith("TIW_ARCHIVE_S3") for variable in service.get("environment", {}))
        or any(volume.startswith("./bucket") for volume in service.get("volumes", []))
    }
    assert knowing == {"archive", "console"}
    # What is fetched and not placed yet outlives the container.
    assert "archive-staging:/var/lib/tiw" in archive["volumes"]


def test_only_what_reconciles_has_the_credentials_of_the_vendors_api_and_it_has_no_callback_key() -> None:
    reconcile = SERVICES["reconcile"]
    assert (reconcile["profiles"], reconcile["networks"]) == (["keep"], ["outside", "inside"])
    assert "ports" not in reconcile
    assert not [name for name in reconcile["environment"] if name.startswith(("TIW_CALLBACK", "TIW_PATH_TOKEN"))]
    assert not [volume for volume in reconcile["volumes"] if volume.startswith(("./keys", "ingest-data"))]
    knowing = {
        name
        for name, service in OURS.items()
        if any(
            variable.startswith(("TIW_VENDOR_SECRET", "TIW_REGISTER")) for variable in service.get("environment", {})
        )
        or any(volume.startswith("./vendor") for volume in service.get("volumes", []))
    }
    assert knowing == {"reconcile"}


def test_who_handles_events_gets_longer_to_stop_than_a_drain_takes() -> None:
    from workers.worker import DRAIN_GRACE_S  # noqa: PLC0415 - only this test needs it

    for name, service in SERVICES.items():
        if name.startswith("worker-") or name in ("plugins", "notify"):
            assert int(service["stop_grace_period"].removesuffix("s")) > DRAIN_GRACE_S, name
    assert SERVICES["ingest"]["stop_grace_period"] == "35s"


def test_the_small_pipeline_is_the_same_image_with_the_same_rights_and_settings() -> None:
    ingest = SERVICES["ingest"]
    for key in ("image", "pull_policy", "user", "read_only", "tmpfs", "cap_drop", "security_opt", "restart"):
        assert PIPELINE[key] == ingest[key], key
    assert PIPELINE["ports"] == [*ingest["ports"], *SERVICES["console"]["ports"]]
    assert PIPELINE["healthcheck"] == ingest["healthcheck"]
    assert (PIPELINE["build"], PIPELINE["command"]) == (SERVICES["secrets"]["build"], ["up"])
    assert not {"privileged", "cap_add", "pid", "ipc", "network_mode", "depends_on"} & set(PIPELINE)
    # What only a spool or a broker needs is not there; all else that the user may set reaches both.
    settings = PIPELINE["environment"].items()
    theirs = SERVICES["plugins"]["environment"] | ingest["environment"]
    for name in ("notify", "reconcile", "archive", "console"):
        theirs |= SERVICES[name]["environment"]
    # It is generated there as the callback key is.
    theirs["TIW_CONSOLE_TOKEN_FILE"] = "${TIW_CONSOLE_TOKEN_FILE:-}"
    assert settings <= theirs.items()
    missing = theirs.keys() - PIPELINE["environment"].keys()
    elsewhere = {"TIW_AMQP_URL", "TIW_AMQP_URL_FILE", "TIW_DATABASE_URL", "TIW_DATABASE_URL_FILE"}
    assert missing == {*elsewhere, "TIW_SPOOL_MAX_BYTES", "TIW_CONSOLE_PEERS"}


def test_the_small_pipeline_keeps_everything_in_a_volume_and_starts_with_no_setting_of_the_users() -> None:
    assert unset(PIPELINE["volumes"]) == [
        "data:/var/lib/tiw",
        "recordings:/recordings",
        "./bucket:/bucket:ro,z",
        "./channels:/channels:ro,z",
        "./keys:/keys:ro,z",
        "./plugins:/plugins:ro,z",
        "./vendor:/vendor:ro,z",
    ]
    assert SMALL["volumes"] == {"data": None, "recordings": None}
    assert SMALL["name"] != COMPOSE["name"], "both would be one project, and remove each other's containers"
    environment = resolved(PIPELINE["environment"])
    assert unknown_variables(environment) == []
    assert read_settings(environment, is_terminal=False).is_embedded
    assert not [name for name, value in environment.items() if value and re.search(r"SECRET|TOKEN|_URL|KEYS", name)]


def test_https_in_front_of_the_small_pipeline_is_that_of_the_large_one() -> None:
    tls = SMALL["services"]["tls"]
    assert tls == {"extends": {"file": "docker-compose.yml", "service": "tls"}, "profiles": SERVICES["tls"]["profiles"]}
    assert set(SERVICES["tls"]["networks"]) == set(SMALL["networks"])
    (forwarded_to,) = PIPELINE["networks"]["outside"]["aliases"]
    template = (ROOT / "deploy/nginx/tiw.conf.template").read_text(encoding="utf-8")
    assert re.findall(r"http://(\w+):8080", template) == [forwarded_to]


def test_the_image_holds_every_package_and_nothing_else_of_ours() -> None:
    let_through = {
        line.removeprefix("!")
        for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
        if line.startswith("!")
    }
    to_build_with = {"requirements/runtime.txt", "requirements/s3.txt", "deploy/plugins.sh"}
    of_the_user = {f"plugins/{name}" for name in ("README.md", "requirements.txt", "wheels")}
    assert let_through == {*PACKAGES, *to_build_with, *of_the_user, "deploy/image", "LICENSE"}
    assert "rm -r /app/deploy /app/plugins /app/requirements" in DOCKERFILE


def test_the_image_installs_what_users_consumers_need_and_is_built_without_it_if_it_cannot() -> None:
    (run,) = re.findall(r"^RUN (/plugins\.sh .*\n.*)", DOCKERFILE, re.MULTILINE)
    assert run.startswith("/plugins.sh /opt/tiw /plugins /requirements.txt pip")
    assert '|| echo "plugins/requirements.txt is NOT INSTALLED, see above' in run
    assert (ROOT / "plugins/README.md").exists(), "COPY plugins needs a file that is always there"


def test_the_image_installs_pinned_wheels_only_and_ends_at_sigterm() -> None:
    assert "--require-hashes" in DOCKERFILE
    assert "--only-binary=:all:" in DOCKERFILE
    assert 'ENTRYPOINT ["tiw"]' in DOCKERFILE
    assert "STOPSIGNAL SIGTERM" in DOCKERFILE
    assert "exec python" in (ROOT / "deploy/image/tiw").read_text(encoding="utf-8"), "signals must reach Python"


@pytest.mark.parametrize("script", ["tiw", "tiw-alive", "tiw-secrets"])
def test_the_scripts_of_the_image_can_be_run(script: str) -> None:
    assert (ROOT / "deploy/image" / script).stat().st_mode & 0o111
