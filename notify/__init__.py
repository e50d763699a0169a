"""Tell people in time: what is worth telling, in words, over chats, webhooks and e-mail."""

from notify.channels import Answer, RefusedForGood, Sender, Sent, TryLater
from notify.config import Channel, ChannelsError, NotifyError, parse_channels

__all__ = [
    "Answer",
    "Channel",
    "ChannelsError",
    "NotifyError",
    "RefusedForGood",
    "Sender",
    "Sent",
    "TryLater",
    "parse_channels",
]
