"""A Sign or a key is found wherever it was written down."""

from pathlib import Path

import pytest

from chaos.evidence import search_files, secrets_in

KEY = "4fd1c0a96b7e4c7f8a2e5d3b1c9f7a60"


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b'{"EventType":"OnlineRecordStarted","Timestamp":1}', []),
        (b'{"Sign":"a2dabb362a9b811c0e26953a6276a41c"}', ["a Sign"]),
        (b'{"body":"{\\"Sign\\":1}"}', ["a Sign"]),
        (f"started with {KEY}".encode(), ["the key"]),
    ],
)
def test_what_must_not_be_written_down_is_found(content: bytes, found: list[str]) -> None:
    assert secrets_in(content, KEY) == found


def test_every_file_is_searched_but_the_refused_callbacks(tmp_path: Path) -> None:
    for name in ("spool/a.spool", "rejected/b"):
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True)
        path.write_text(KEY)
    assert dict(search_files([tmp_path / "data"], KEY)) == {"data/spool/a.spool": ["the key"]}
