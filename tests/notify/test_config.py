"""What TIW_NOTIFY takes, and how a mistake is said without telling an address."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notify import Channel, ChannelsError, parse_channels
from notify.config import KINDS, MailServer

SECRET = "very-secret-1234"
WHSEC = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
WECOM = f"wecom=https://qyapi.weixin.qq.com/cgi-bin/webhook/send?key={SECRET}"


def one(text: str) -> Channel:
    (channel,) = parse_channels(text)
    return channel


def refused(text: str) -> str:
    with pytest.raises(ChannelsError) as error:
        parse_channels(text)
    assert SECRET not in str(error.value)
    return str(error.value)


def test_channels_stand_one_a_line_or_between_commas_and_comments_are_passed_over() -> None:
    text = "# ours\nwecom=https://h/a?key=1, dingtalk=http://h/b?access_token=2\n\n  Slack=https://h/c,\n"
    assert [(channel.kind, channel.url) for channel in parse_channels(text)] == [
        ("wecom", "https://h/a?key=1"),
        ("dingtalk", "http://h/b?access_token=2"),
        ("slack", "https://h/c"),
    ]


def test_a_channel_without_a_name_is_called_as_its_kind_and_counted() -> None:
    text = "slack=https://h/1,slack=https://h/2#name=slack-2,slack=https://h/3,feishu=https://h/4#name=ops"
    assert [channel.name for channel in parse_channels(text)] == ["slack", "slack-2", "slack-3", "ops"]


def test_what_stands_behind_the_hash_is_no_part_of_the_address() -> None:
    channel = one(
        "dingtalk=https://h/robot?access_token=t#secret=SEC+/=%26&keyword=%E5%BD%95%E5%88%B6&mention=a&mention=b"
    )
    assert channel.url == "https://h/robot?access_token=t"
    assert (channel.secret, channel.keyword, channel.mentions) == ("SEC+/=&", "录制", ("a", "b"))


def test_an_e_mail_channel_names_the_server_and_who_is_told() -> None:
    channel = one("email=smtps://ops%40example.com:p%2Fw%3A@[::1]:4650/?to=a@example.com&to=b+x@example.com")
    assert channel.mail == MailServer(
        host="::1",
        port=4650,
        security="smtps",
        user="ops@example.com",
        password="p/w:",
        sender="ops@example.com",
        recipients=("a@example.com", "b+x@example.com"),
    )


@pytest.mark.parametrize(
    ("address", "port", "sender"),
    [
        ("smtp://mail?to=a@b.c", 25, "a@b.c"),
        ("smtps://mail/?to=a@b.c&from=x@y.z", 465, "x@y.z"),
        ("starttls://ops:pw@mail?to=a@b.c", 587, "ops@mail"),
    ],
)
def test_port_and_sender_of_an_e_mail_need_not_be_said(address: str, port: int, sender: str) -> None:
    mail = one(f"email={address}").mail
    assert mail is not None
    assert (mail.port, mail.sender) == (port, sender)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "names no channel"),
        ("# only a comment", "names no channel"),
        (f"https://h/{SECRET}", "channel 1 is not KIND=URL with a KIND of wecom, dingtalk"),
        (f"{WECOM},slak=https://h/{SECRET}", "channel 2 is not KIND=URL"),
        (f"slack=https://h/a,b{SECRET}", "a comma within an address is %2C"),
        (f"wecom={SECRET}", "channel 1, wecom: its address cannot be read: it looks like https://qyapi"),
        (f"slack=ftp://{SECRET}/", "must begin with https:// or http://, such as https://hooks.slack.com"),
        (f"slack=https://h/ {SECRET}", "has a space or a control character in it"),
        (f"slack=https://h/\u202e{SECRET}", "has a space or a control character in it"),
        (f"slack=https://h:0/{SECRET}", "cannot be read"),
        (f"slack=https://h:port/{SECRET}", "cannot be read"),
        (f"slack=https://[h/{SECRET}", "cannot be read"),
        (f"slack=https://h/数{SECRET}", "must be ASCII"),
        (f"wecom=https://qyapi.weixin.qq.com/cgi-bin/webhook/send#name={SECRET}", "its address lacks key="),
        (f"dingtalk=https://oapi.dingtalk.com/robot/send?token={SECRET}", "lacks access_token="),
        (f"wecom=https://h/#secret={SECRET}", "behind the # it takes keyword=, mention=, name= and nothing else"),
        (f"slack=https://h/#{SECRET}", "behind the # it takes"),
        (f"feishu=https://h/#secret={SECRET}&secret=2", "only mention= may stand more than once"),
        (f"slack=https://h/{SECRET}#name=Ops Room".replace(" ", "%20"), "name= must be 1 to 32 of a-z"),
        (f"slack=https://h/{SECRET}#keyword=", "keyword= must be one line of at most 40 characters"),
        (f"slack=https://h/{SECRET}#keyword=a%0Ab", "keyword= must be one line"),
        (f"feishu=https://h/{SECRET}#mention=%22all", "mention= must be all, or an id"),
        (f"webhook=https://h/#secret={SECRET}", "must be whsec_ and 24 to 64 bytes as base64"),
        (f"webhook=https://h/#secret=whsec_{SECRET}", "must be whsec_ and 24 to 64 bytes as base64"),
        (f"slack=https://h/{SECRET}#name=a,slack=https://h/2#name=a", "two channels are called a"),
        (f"email=https://u:{SECRET}@h/?to=a@b.c", "must begin with smtps://, starttls:// or smtp://"),
        (f"email=smtp://u:{SECRET}/x@h?to=a@b.c", "cannot be read"),
        (f"email=smtp://u:x@h/{SECRET}?to=a@b.c", "a / in its user or password is %2F"),
        (f"email=smtp://u:{SECRET}@h/", "ends with ?to=A@B"),
        (f"email=smtp://u:{SECRET}@h/?to=a@b.c&cc=d@e.f", "ends with ?to=A@B"),
        (f"email=smtp://{SECRET}@h/?to=a@b.c", "a user without a password"),
        (f"email=smtp://u:{SECRET}@h/?to=a", "to= and from= must be addresses"),
        (f"email=smtp://u:{SECRET}@h/?to=a@b.c%0d%0aBcc:x@y.z", "to= and from= must be addresses"),
        (f"email=smtp://u:{SECRET}@h/?to=a@b.c&from=%3Ca@b.c%3E", "to= and from= must be addresses"),
    ],
)
def test_a_mistake_is_said_in_a_sentence_that_shows_no_address(text: str, said: str) -> None:
    assert said in refused(text)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "10.0.0.1", "169.254.1.1", "[::1]"])
def test_addresses_of_the_operators_own_network_are_taken(host: str) -> None:
    assert one(f"webhook=http://{host}:8000/hook#secret={WHSEC}").url == f"http://{host}:8000/hook"


@given(text=st.text(), kind=st.sampled_from(KINDS))
def test_whatever_stands_there_is_taken_or_refused_in_one_line(text: str, kind: str) -> None:
    for given_text in (text, f"{kind}={text}", f"{kind}=https://h/{text}", f"email=smtp://{text}"):
        try:
            channels = parse_channels(given_text)
        except ChannelsError as error:
            said = str(error)
        else:
            said = ""
            assert channels
        assert said.isprintable()


def test_a_channel_shows_neither_address_nor_secret() -> None:
    channel = one(f"feishu=https://h/{SECRET}#secret={SECRET}")
    assert SECRET not in f"{channel} {channel!r} {[channel]!r} {channel.address_id}"
    assert channel.address_id == one(f"feishu=https://h/{SECRET}#name=other").address_id
    assert channel.address_id != one("feishu=https://h/another").address_id
