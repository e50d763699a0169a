"""The archive as the console opens it."""

import pytest

from archive import PlaceError
from tiw.commands.console import _archive
from tiw.settings import read_settings

IN_COS = {
    "TIW_ARCHIVE": "s3://classes-1250000000/kept",
    "TIW_ARCHIVE_S3_ENDPOINT": "https://cos.ap-guangzhou.myqcloud.com",
    "TIW_ARCHIVE_S3_STYLE": "path",
    "TIW_ARCHIVE_S3_KEY_ID": "id",
    "TIW_ARCHIVE_S3_SECRET": "secret",
}


def test_an_archive_that_leads_nowhere_is_told_to_who_wants_to_watch() -> None:
    opened = _archive(read_settings(IN_COS, is_terminal=False))
    assert opened is not None
    with pytest.raises(PlaceError, match="COS knows a bucket by the host's name only"):
        opened()


def test_without_an_archive_there_is_none_to_open() -> None:
    assert _archive(read_settings({}, is_terminal=False)) is None
