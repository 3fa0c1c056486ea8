"""E-mails that SNS sends: kept for whoever looks, since no mail leaves this machine.

SNS sends to a subscription only once its recipient has confirmed it; here every recipient confirms at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ministack.services import sns

_PROTOCOLS = ("email", "email-json")


class Mailbox:
    """All e-mails, the oldest first."""

    def __init__(self) -> None:
        self._messages: list[dict[str, str]] = []

    def messages(self) -> list[dict[str, str]]:
        """Return each e-mail's ``to``, ``subject`` and ``body``."""
        return list(self._messages)

    def deliver(self, recipients: list[str], subject: str, body: str) -> None:
        """Keep one e-mail for each recipient."""
        self._messages += [{"to": recipient, "subject": subject, "body": body} for recipient in recipients]


def install(mailbox: Mailbox) -> None:
    """Deliver what is published to topics with e-mail subscriptions."""
    fanout: Callable[..., Any] = sns._fanout

    def fanout_and_mail(topic_arn: str, msg_id: str, message: str, subject: str, *rest: Any, **more: Any) -> Any:
        topic = sns._topic_by_arn_any_scope(topic_arn) or {}
        recipients = [entry["endpoint"] for entry in topic.get("subscriptions", []) if entry["protocol"] in _PROTOCOLS]
        mailbox.deliver(recipients, subject or "AWS Notification Message", message)
        return fanout(topic_arn, msg_id, message, subject, *rest, **more)

    sns._fanout = fanout_and_mail
