"""What identifies a file of a recording."""

from hypothesis import given
from hypothesis import strategies as st

from schemas import VideoInfo, file_key


def key(**members: object) -> str:
    return file_key(VideoInfo(**{"video_size": 5} | members))  # type: ignore[arg-type]  # as they are drawn


def test_it_is_the_video_id_and_the_size_whatever_the_address() -> None:
    assert key(video_id="v", video_url="https://a/x.mp4") == key(video_id="v", video_url="https://b/y.mp4?sign=1")
    assert key(video_id="v") != key(video_id="w")
    assert key(video_id="v") != key(video_id="v", video_size=6)
    assert key(video_id="v") == "77e583b4b4f8a5928a2b053ad18768f7", "it outlives versions"


def test_without_a_video_id_it_is_the_path() -> None:
    assert key(video_url="https://a/d/x.mp4?sign=1#f") == key(video_url="http://b:81/d/x.mp4")
    assert key(video_url="https://a/d/x.mp4") != key(video_url="https://a/e/x.mp4")
    assert key(video_url="/v") != key(video_id="/v")
    assert key() == key(video_id="", video_url="")


@given(url=st.text(st.characters(codec=None)))
def test_any_text_has_one(url: str) -> None:
    assert len(key(video_url=url)) == len(key(video_id=url)) == 32
