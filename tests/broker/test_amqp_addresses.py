"""Addresses of brokers: which are refused, and that none shows its password."""

import pytest

from broker import BrokerError
from tests.broker.amqp_broker import open_amqp


@pytest.mark.parametrize("address", ["amqp://guest:guest@broker.example/", "amqp://broker.example", "amqps://10.0.0.7"])
def test_a_guest_is_refused_off_loopback(address: str) -> None:
    with pytest.raises(BrokerError, match="guest"):
        open_amqp(address)


@pytest.mark.parametrize("address", ["amqp://guest:guest@127.0.0.1/", "amqp://localhost", "amqp://guest@[::1]:5672/v"])
def test_a_guest_is_welcome_on_loopback(address: str) -> None:
    assert not open_amqp(address).is_ready


@pytest.mark.parametrize("address", ["", "http://u:s3cret@h", "amqp://u:s3cret@", "amqp://u:s3cret@h:port/", "s3cret"])
def test_an_address_that_cannot_be_right_is_refused_without_showing_it(address: str) -> None:
    with pytest.raises(BrokerError) as refusal:
        open_amqp(address)
    assert "s3cret" not in str(refusal.value)


def test_at_least_one_address_is_needed() -> None:
    with pytest.raises(BrokerError):
        open_amqp()
