"""Tell people in time: what is worth telling, in words, over chats, webhooks and e-mail."""

from notify.channels import Answer, RefusedForGood, Sender, Sent, TryLater
from notify.config import Channel, ChannelsError, NotifyError, parse_channels
from notify.messages import Content, Wording, compose, title_of
from notify.rules import RULES, TEMPLATE_FIELDS, Alert, alerts_of, archive_failing, file_expiring
from notify.service import CONSUMER_QUEUES, Notifier, notices_of
from notify.texts import LANGUAGES, LoadedTemplates, Message, Template, load_templates
from notify.watching import Look, SpoolUse, look_for_broker, look_for_spool

__all__ = [
    "CONSUMER_QUEUES",
    "LANGUAGES",
    "RULES",
    "TEMPLATE_FIELDS",
    "Alert",
    "Answer",
    "Channel",
    "ChannelsError",
    "Content",
    "LoadedTemplates",
    "Look",
    "Message",
    "Notifier",
    "NotifyError",
    "RefusedForGood",
    "Sender",
    "Sent",
    "SpoolUse",
    "Template",
    "TryLater",
    "Wording",
    "alerts_of",
    "archive_failing",
    "compose",
    "file_expiring",
    "load_templates",
    "look_for_broker",
    "look_for_spool",
    "notices_of",
    "parse_channels",
    "title_of",
]
