"""Every block of the pages of the first hour can be pasted: it runs as it stands, and prints what the page says."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.end_to_end.checkout import NO_INDEX, copy_repository, make_environment, make_wheel
from tests.end_to_end.compose import check_compose
from tests.end_to_end.pages import Block, Reader, blocks_of, is_what_came
from tests.end_to_end.programs import ROOT, eventually

PAGES = ("README.md", "plugins/README.md", "examples/README.md", "docs/deployment.md")

#: What is not followed, by page and first line, and why. Whatever is not named here is.
LEFT_OUT = {
    ("README.md", 24 * " " + "┌" + 26 * "─" + " RabbitMQ, or one SQLite file " + 25 * "─" + "┐"): "a picture",
    ("README.md", "./dev check"): "this suite is part of it",
    ("examples/README.md", "CHAT_WEBHOOK_URL='https://...' TIW_CONSUMERS=examples/notify_chat.py ./dev up"): (
        "needs somewhere to send to; tests/examples has it"
    ),
    ("examples/README.md", 'outcome = await run_consumer(archive, OnlineRecordFinished(task_id="t", timestamp=1))'): (
        "a fragment"
    ),
    ("docs/deployment.md", "services:"): "a part of a file",
    ("docs/deployment.md", "TIW_AMQP_URL_FILE="): "hosts that are not there",
    ("docs/deployment.md", "# /etc/systemd/system/tiw.service"): "a unit, which the next test reads",
    ("docs/deployment.md", "systemctl daemon-reload"): "needs systemd; the next test reads the unit",
    ("docs/deployment.md", "curl --unix-socket /run/tiw/ingest.sock http://localhost/healthz"): (
        "needs a folder of root's; tests/ingest/test_unix_socket.py has another"
    ),
}


@pytest.fixture
def reader(tmp_path: Path) -> Reader:
    clone = tmp_path / "clone"
    copy_repository(clone)
    make_environment(clone / ".venv")
    # What plugins/README.md has installed, without a network.
    make_wheel(tmp_path, "boto3==1.40.1", {"boto3.py": ""})
    return Reader(clone, tmp_path / "tmp", {**NO_INDEX, "PIP_FIND_LINKS": str(tmp_path)})


def to_follow(page: str) -> list[Block]:
    return [block for block in blocks_of(ROOT, page) if (page, block.first_line) not in LEFT_OUT]


@pytest.mark.parametrize("page", PAGES)
def test_every_block_runs_as_it_stands_and_prints_what_the_page_says(page: str, reader: Reader) -> None:
    blocks = to_follow(page)
    with reader:
        if page == "docs/deployment.md":
            # A backup is made of what runs.
            reader.follow([block for block in to_follow("README.md") if block.text == "./dev up\n"])
        reader.follow(blocks)
        for block in blocks:
            if block.file == "docker-compose.override.yml":
                changed = yaml.safe_load(block.text)["services"]
                assert changed.keys() <= yaml.safe_load((ROOT / "docker-compose.yml").read_bytes())["services"].keys()
            elif block.file is not None and not any(f"try {block.file}" in other.text for other in blocks):
                assert "  handled  in " in reader.paste(f"./dev tiw try {block.file}", where=f"{block}, tried")
        if page == "plugins/README.md":
            assert (reader.folder / ".venv/plugins/packages/boto3.py").exists()
        if page == "README.md":
            eventually(lambda: list((reader.temporary / "archive").glob("*.txt")))
        if page == "examples/README.md":
            eventually(lambda: any(file.read_text(encoding="utf-8") for file in reader.folder.glob("recordings.csv")))
    called = [call for call in reader.calls if call[:2] == ["docker", "compose"]]
    for _, _, *arguments in called:
        check_compose(arguments, ROOT)
    mentioned = sum(line.count("docker compose ") for block in blocks for line in code(block))
    assert len(called) == mentioned, "a shell came to every one"


def code(block: Block) -> list[str]:
    """Return the lines of a shell block, without comments."""
    return [re.sub(r"(^|\s)#.*", "", line) for line in block.text.splitlines()] if block.language == "sh" else []


def test_the_unit_is_one_that_systemd_takes(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd is not installed")
    (unit,) = [block for block in blocks_of(ROOT, "docs/deployment.md") if block.language == "ini"]
    file = tmp_path / "tiw.service"
    # The program must be there, and nothing else of this machine matters.
    file.write_text(unit.text.replace("/srv/tiw-callbacks", str(ROOT)), encoding="utf-8")
    said = subprocess.run([analyze, "verify", str(file)], capture_output=True, text=True, check=False)
    assert [line for line in said.stderr.splitlines() if "tiw.service" in line] == []


def test_what_is_left_out_is_there() -> None:
    there = {(page, block.first_line) for page in PAGES for block in blocks_of(ROOT, page)}
    assert there >= LEFT_OUT.keys()


@pytest.mark.parametrize("page", ["README.md", "plugins/README.md", "examples/README.md"])
def test_no_comment_is_pasted_where_it_would_be_an_argument(page: str) -> None:
    shell = [block for block in blocks_of(ROOT, page) if block.language == "sh"]
    commented = [str(block) for block in shell if code(block) != block.text.splitlines()]
    assert not commented, "zsh takes no comments at its prompt"


@pytest.mark.parametrize(
    ("came", "is_same"),
    [
        ("one 127.0.0.1:9\n\nany\nrow  2\nrow 1\nlast in 1.5 s\nkey: 0fab\n", True),
        ("one 127.0.0.1:9\nrow 1\nlast in 1.5 s\nkey: 1fab\n", False),
        ("one 127.0.0.1:9\nrow 2\nlast in 1.5 s\nkey: 0fab\n", False),
        ("one 127.0.0.1:9\nrow 1\nlast in 1.5 s\nkey: 0fab\nand more\n", False),
        ("zero\none 127.0.0.1:9\nrow 1\nlast in 1.5 s\nkey: 0fab\n", False),
    ],
)
def test_an_output_that_differs_is_found(came: str, is_same: bool) -> None:
    assert is_what_came("one  127.0.0.1:8080\n...\nrow 1\n...\nlast in 0.002 s\nkey: 0f...\n", came) == is_same
