import asyncio
import socket
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from pathlib import Path

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from archive import (
    DEFAULT_HOSTS,
    AddressRules,
    Fetcher,
    FetchError,
    FetchLimits,
    ForbiddenAddressError,
    HostRule,
    check_url,
    is_forbidden_ip,
    parse_hosts,
    parse_networks,
)
from archive.addresses import CheckedConnector
from simulator import FileFailure, FileFaults, VendorFiles
from tests.archive.corpus import (
    ALLOWED,
    FORBIDDEN_IPS,
    FORMS,
    LITERALS,
    METADATA_IPS,
    OTHERS,
    PUBLIC_IPS,
    PUBLIC_LITERALS,
)
from tests.archive.serving import Caller, Names, listening, until

VENDORS = AddressRules(hosts=DEFAULT_HOSTS)
EVERYTHING = (ip_network("0.0.0.0/0"), ip_network("::/0"))
QUICK = FetchLimits(connect_within_s=2.0, answer_within_s=5.0)


def shortened(url: str) -> str:
    return ascii(url[:80])


def is_refused(url: str, *, is_vendors: bool) -> bool:
    try:
        check_url(url.replace("{port}", "8080"), VENDORS, is_vendors=is_vendors)
    except ForbiddenAddressError:
        return True
    return False


def test_an_address_of_a_callback_that_is_none_of_the_vendors_is_refused() -> None:
    urls = [*LITERALS, *FORMS, *OTHERS, *PUBLIC_LITERALS]
    assert [url for url in urls if not is_refused(url, is_vendors=False)] == []


def test_an_address_that_is_forbidden_is_refused_though_the_vendor_names_it() -> None:
    assert [url for url in (*LITERALS, *FORMS) if not is_refused(url, is_vendors=True)] == []


@pytest.mark.parametrize(("url", "asked"), ALLOWED)
def test_an_address_of_the_vendors_is_asked_for_as_it_was_signed(url: str, asked: str) -> None:
    assert str(check_url(url, VENDORS, is_vendors=False)) == asked
    assert str(check_url(url, VENDORS, is_vendors=True)) == asked


def test_the_vendors_api_may_name_any_host_and_port() -> None:
    for url in ("http://files.school.example:8080/a.mp4", "https://8.8.8.8/a.mp4", "http://[2606:4700::1]:81/a.mp4"):
        assert str(check_url(url, VENDORS, is_vendors=True)) == url


@given(st.text(max_size=60).map("http://a.myqcloud.com{}".format) | st.text(max_size=60).map("http://{}".format))
def test_whatever_is_written_is_refused_or_leads_to_the_vendor(url: str) -> None:
    try:
        checked = check_url(url, VENDORS, is_vendors=False)
    except ForbiddenAddressError:
        return
    assert (checked.host or "").endswith((".myqcloud.com", ".tencentcos.cn", ".tencentcos.com"))
    assert checked.user is None
    assert checked.port == 80


@pytest.mark.parametrize("url", ["http://u:secret@a/", "http://evil.example/secret?secret#secret", "x:secret"])
def test_a_refusal_tells_nothing_of_an_address_but_its_host(url: str) -> None:
    with pytest.raises(ForbiddenAddressError) as caught:
        check_url(url, VENDORS, is_vendors=False)

    assert "secret" not in f"{caught.value!r}{caught.value.reason}{caught.value.__cause__}"


def test_special_addresses_are_forbidden() -> None:
    texts = (*FORBIDDEN_IPS, *METADATA_IPS)
    assert [text for text in texts if is_forbidden_ip(ip_address(text), ()) is None] == []


def test_public_addresses_are_not_forbidden() -> None:
    assert [text for text in PUBLIC_IPS if is_forbidden_ip(ip_address(text), ()) is not None] == []


def test_metadata_stay_forbidden_whatever_networks_are_allowed() -> None:
    assert [text for text in METADATA_IPS if is_forbidden_ip(ip_address(text), EVERYTHING) is None] == []


def test_what_is_named_is_allowed_but_nothing_beside_it() -> None:
    others = (ip_network(f"10.9.9.9/{32}"), ip_network("fd99::/32"))
    for text in FORBIDDEN_IPS:
        ip = ip_address(text)
        assert is_forbidden_ip(ip, (ip_network(text),)) is None, text
        assert is_forbidden_ip(ip, others) is not None, text


@given(st.ip_addresses(v=4))
def test_an_address_that_wraps_another_is_no_better_than_that(ip: IPv4Address) -> None:
    inner = int(ip)
    is_bad = is_forbidden_ip(ip, ()) is not None
    mapped, nat64 = IPv6Address(0xFFFF << 32 | inner), IPv6Address((0x64FF9B << 96) | inner)
    tunnels = (
        IPv6Address(inner),
        IPv6Address(0x2002 << 112 | inner << 80 | 1),
        IPv6Address(0x20010000 << 96 | inner << 64),
        IPv6Address(0x20010000 << 96 | 0x08080808 << 64 | inner ^ 0xFFFF_FFFF),
        IPv6Address((0x64FF9B0001 << 80) | inner),
    )

    assert [is_forbidden_ip(one, ()) is not None for one in (mapped, nat64)] == [is_bad, is_bad]
    assert all(is_forbidden_ip(one, ()) is not None for one in tunnels)
    isatap = IPv6Address(0x2001_0470 << 96 | 0x5EFE << 32 | inner)
    assert (is_forbidden_ip(isatap, ()) is not None) == is_bad


def test_an_allowed_network_is_allowed_in_the_forms_that_are_connected_to_over_ipv4() -> None:
    networks = parse_networks("10.0.0.0/8")

    assert is_forbidden_ip(ip_address("::ffff:10.1.2.3"), networks) is None
    assert is_forbidden_ip(ip_address("::ffff:11.1.2.3"), networks) is None
    assert is_forbidden_ip(ip_address("::ffff:192.168.2.3"), networks) is not None
    assert is_forbidden_ip(ip_address("::ffff:127.0.0.1"), (ip_network("::/0"),)) is not None


def test_hosts_are_read() -> None:
    assert parse_hosts("") == ()
    assert parse_hosts("Files.School.example., .cdn.example\n*.a.example:8080,[2606:4700::1]:81 8.8.8.8") == (
        HostRule(name="files.school.example"),
        HostRule(name=".cdn.example"),
        HostRule(name=".a.example", port=8080),
        HostRule(name="2606:4700::1", port=81),
        HostRule(name="8.8.8.8"),
    )


@pytest.mark.parametrize(
    "text",
    [
        *("http://a.example", "a.example/b", "u@a.example", "a..example", "*", "a.example:0", "a.example:99999", ":80"),
        *("127.1", ".8.8.8.8", "a.*.example", "[::1", "a.example:x", "%61.example"),
    ],
)
def test_what_is_no_host_is_named(text: str) -> None:
    with pytest.raises(ValueError, match="is no host"):
        parse_hosts(f"b.example,{text}")


def test_networks_are_read() -> None:
    assert parse_networks(" 10.0.0.0/8, fd00::/8\n169.254.0.0/16 ") == (
        ip_network("10.0.0.0/8"),
        ip_network("fd00::/8"),
        ip_network("169.254.0.0/16"),
    )
    for text in ("10.0.0.1/8", "10.0.0.0/33", "COS", "10.*"):
        with pytest.raises(ValueError, match="is no network"):
            parse_networks(text)


def test_a_rule_with_a_port_allows_that_port_and_no_other() -> None:
    rules = AddressRules(hosts=parse_hosts("a.example:8080,b.example,b.example:9000"))

    for url in ("http://a.example:8080/", "https://a.example:8080/", "http://b.example/", "http://b.example:9000/"):
        assert str(check_url(url, rules, is_vendors=False)) == url
    for url in ("http://a.example/", "http://b.example:8080/", "http://x.b.example/"):
        with pytest.raises(ForbiddenAddressError):
            check_url(url, rules, is_vendors=False)


# What is really connected to.


async def test_nothing_connects_where_it_must_not_whoever_names_it(tmp_path: Path) -> None:
    """Every address of the corpus is asked for; every name leads to this machine, where a socket counts."""
    async with listening() as listener:
        port = str(listener.port)
        rules = AddressRules(hosts=(*DEFAULT_HOSTS, HostRule(name=".myqcloud.com", port=listener.port)))
        async with Fetcher(rules, QUICK, resolver=Names({}, others=["127.0.0.1", "::1"])) as fetcher:
            for number, url in enumerate([*LITERALS, *FORMS, *OTHERS, *(url for url, _ in ALLOWED)]):
                caller = Caller(fetcher, tmp_path / f"{number}.part", url.replace("{port}", port))
                assert isinstance(await caller.fail(), ForbiddenAddressError), shortened(url)
                assert caller.length == 0
        assert listener.connections == 0


@pytest.mark.parametrize("address", [*FORBIDDEN_IPS, *METADATA_IPS, "::1%lo", "localhost", "127.1", ""])
async def test_a_name_that_leads_inside_is_not_connected_to(tmp_path: Path, address: str) -> None:
    async with listening() as listener, asyncio.timeout(10):
        url = f"http://a.myqcloud.com:{listener.port}/a.mp4"
        names = Names({"a.myqcloud.com": [[address]]})
        async with Fetcher(VENDORS, QUICK, resolver=names) as fetcher:
            assert isinstance(await Caller(fetcher, tmp_path / "a.part", url).fail(), ForbiddenAddressError)
        assert names.asked == ["a.myqcloud.com"]
        assert listener.connections == 0


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]", "localhost"])
async def test_the_connection_itself_is_checked_whatever_was_checked_before(host: str) -> None:
    async with listening() as listener:
        connector = CheckedConnector(())
        async with aiohttp.ClientSession(connector=connector) as session:
            with pytest.raises(ForbiddenAddressError):
                await session.get(f"http://{host}:{listener.port}/a.mp4")
        assert listener.connections == 0


async def test_of_a_name_with_several_addresses_only_the_good_ones_are_connected_to(tmp_path: Path) -> None:
    async with listening() as listener, VendorFiles(host="127.0.0.2", port=listener.port) as files:
        files.put("/a.mp4", 1000)
        names = Names({"a.myqcloud.com": [["127.0.0.1", "::1", "127.0.0.2", "10.0.0.1"]]})
        rules = AddressRules(hosts=DEFAULT_HOSTS, networks=parse_networks("127.0.0.2/32"))
        async with Fetcher(rules, QUICK, resolver=names) as fetcher:
            caller = Caller(fetcher, tmp_path / "a.part", f"http://a.myqcloud.com:{listener.port}/a.mp4")
            assert (await caller.fetch()).size == 1000
        assert listener.connections == 0


async def test_a_name_that_leads_elsewhere_the_next_time_is_looked_up_and_checked_again(tmp_path: Path) -> None:
    faults = FileFaults()
    async with listening() as listener, VendorFiles(host="127.0.0.2", port=listener.port, faults=faults) as files:
        files.put("/a.mp4", 200_000)
        faults.fail_next(FileFailure.CUT_OFF)
        names = Names({"a.myqcloud.com": [["127.0.0.2"], ["127.0.0.1"], ["127.0.0.2"]]})
        rules = AddressRules(hosts=DEFAULT_HOSTS, networks=parse_networks("127.0.0.2/32"))
        async with Fetcher(rules, QUICK, resolver=names) as fetcher:
            caller = Caller(fetcher, tmp_path / "a.part", f"http://a.myqcloud.com:{listener.port}/a.mp4")
            assert not isinstance(await caller.fail(), ForbiddenAddressError)
            assert isinstance(await caller.fail(), ForbiddenAddressError)
            assert (await caller.fetch()).size == 200_000
        assert listener.connections == 0


async def test_no_redirect_leads_where_nothing_may_be_fetched_from(tmp_path: Path) -> None:
    faults = FileFaults(share=1.0, failures=[FileFailure.REDIRECTED])
    async with listening() as listener, VendorFiles(host="127.0.0.2", faults=faults) as files:
        files.put("/a.mp4", 1000)
        port = int(files.url.rpartition(":")[2])
        rules = AddressRules(
            hosts=(HostRule(name="127.0.0.2", port=port), HostRule(name=".myqcloud.com", port=listener.port)),
            networks=parse_networks("127.0.0.2/32"),
        )
        names = Names({}, others=["127.0.0.1"])
        async with Fetcher(rules, QUICK, resolver=names) as fetcher:
            for url in [
                *LITERALS,
                *OTHERS,
                *PUBLIC_LITERALS,
                *(url for url in FORMS if url.isprintable() and "://" in url),
            ]:
                target = url.replace("{port}", str(listener.port))
                if not target.isascii() or len(target) > 1000:
                    continue
                faults.redirect_to = target
                before = len(files.requests)
                error = await Caller(fetcher, tmp_path / "a.part", f"{files.url}/a.mp4").fail()
                assert isinstance(error, ForbiddenAddressError), (target, error)
                assert len(files.requests) == before + 1
        assert listener.connections == 0


async def test_the_vendors_word_does_not_hold_for_where_its_address_redirects_to(tmp_path: Path) -> None:
    faults = FileFaults(share=1.0, failures=[FileFailure.REDIRECTED])
    async with VendorFiles(host="127.0.0.2", faults=faults) as files, VendorFiles(host="127.0.0.3") as others:
        files.put("/a.mp4", 1000)
        others.put("/a.mp4", 1000)
        faults.redirect_to = f"{others.url}/a.mp4"
        networks = parse_networks("127.0.0.0/8")
        async with Fetcher(AddressRules(hosts=(), networks=networks), QUICK) as fetcher:
            caller = Caller(fetcher, tmp_path / "a.part", f"{files.url}/a.mp4")
            assert isinstance(await caller.fail(), ForbiddenAddressError)
        assert others.requests == []
        hosts = (HostRule(name="127.0.0.3", port=int(others.url.rpartition(":")[2])),)
        async with Fetcher(AddressRules(hosts=hosts, networks=networks), QUICK) as fetcher:
            assert (await Caller(fetcher, tmp_path / "a.part", f"{files.url}/a.mp4").fetch()).size == 1000


async def test_a_proxy_of_the_environment_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with listening() as listener, VendorFiles(host="127.0.0.2") as files:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{listener.port}")
        files.put("/a.mp4", 1000)
        rules = AddressRules(hosts=(), networks=parse_networks("127.0.0.0/8"))
        async with Fetcher(rules, QUICK) as fetcher:
            assert (await Caller(fetcher, tmp_path / "a.part", f"{files.url}/a.mp4").fetch()).size == 1000
        assert listener.connections == 0


async def test_a_name_that_nobody_knows_is_told(tmp_path: Path) -> None:
    async with Fetcher(VENDORS, QUICK, resolver=Names({})) as fetcher:
        error = await Caller(fetcher, tmp_path / "a.part", "http://a.myqcloud.com/a.mp4").fail()
    assert type(error) is FetchError
    assert error.reason == "a.myqcloud.com was not reached: its name is not known"


def test_the_sockets_that_count_would_notice() -> None:
    async def connect() -> int:
        async with listening() as listener:
            _, writer = await asyncio.open_connection("127.0.0.1", listener.port, family=socket.AF_INET)
            writer.close()
            await writer.wait_closed()
            await until(lambda: listener.connections > 0)
            return listener.connections

    assert asyncio.run(connect()) == 1
