"""E-mails that SNS sends: kept in a mailbox, since no mail leaves this machine.

A subscription by e-mail is pending until its recipient follows the link in the first mail, and is gone after three days
without: https://docs.aws.amazon.com/sns/latest/dg/sns-email-notifications.html. A subject has at most 99 characters of
UTF-8, no line breaks and no control characters, and a topic whose key cannot be used takes no messages:
https://docs.aws.amazon.com/sns/latest/api/API_Publish.html. A subscription's filter holds for e-mails too:
https://docs.aws.amazon.com/sns/latest/dg/sns-message-filtering.html
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from ministack import app
from ministack.core import responses
from ministack.services import kms, sns
from ministack.services.cloudformation import provisioners

from ..clock import Clock

_PROTOCOLS = ("email", "email-json")
_PENDING = timedelta(days=3)
MAX_SUBJECT = 99
"""Fewer than 100 characters."""
MAX_MESSAGE_BYTES = 262_144
"""https://docs.aws.amazon.com/sns/latest/api/API_Publish.html"""


class Mailbox:
    """All e-mails, the oldest first, and the links in them."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._messages: list[dict[str, str]] = []

    def messages(self) -> list[dict[str, str]]:
        """Return each e-mail's ``to``, ``subject`` and ``body``."""
        return list(self._messages)

    def deliver(self, recipients: list[str], subject: str, body: str) -> None:
        """Keep one e-mail for each recipient."""
        self._messages += [{"to": recipient, "subject": subject, "body": body} for recipient in recipients]

    def ask(self, topic_arn: str, subscription: dict[str, Any]) -> None:
        """Ask the recipient of a new subscription to confirm it."""
        subscription |= {"confirmed": False, "token": sns.new_uuid(), "since": self._clock.iso()}
        attributes = {"PendingConfirmation": "true", "ConfirmationWasAuthenticated": "false"}
        subscription.setdefault("attributes", {}).update(attributes)
        sns._refresh_subscription_counts(sns._topic_by_arn_any_scope(topic_arn))
        body = (
            f"You have chosen to subscribe to the topic:\n{topic_arn}\n\nTo confirm, follow the link:\n"
            f"?Action=ConfirmSubscription&TopicArn={topic_arn}&Token={subscription['token']}"
        )
        self.deliver([subscription["endpoint"]], "AWS Notification - Subscription Confirmation", body)

    def confirm(self, recipient: str | None = None) -> int:
        """Follow the links of all pending subscriptions, or of one recipient's; return how many there were."""
        count = 0
        for topic, subscription in list(_pending()):
            if recipient in (None, subscription["endpoint"]):
                account, region = _scope(topic["arn"])
                with responses.request_scope(account, region):
                    sns._confirm_subscription({"TopicArn": [topic["arn"]], "Token": [subscription["token"]]})
                count += 1
        return count

    def forget_pending(self) -> None:
        """Remove what nobody has confirmed for three days."""
        for topic, subscription in list(_pending()):
            if self._clock.now() - datetime.fromisoformat(subscription["since"]) >= _PENDING:
                topic["subscriptions"].remove(subscription)
                sns._sub_arn_to_topic.pop(subscription["arn"], None)
                sns._refresh_subscription_counts(topic)


def install(mailbox: Mailbox, clock: Clock) -> None:
    """Deliver what is published to confirmed subscriptions, and check subjects."""
    _deliver_what_is_published(mailbox)
    _ask_the_topics_key()
    _ask_new_recipients(mailbox)
    _list_pending_as_such()
    _check_subjects()
    clock.every_day(mailbox.forget_pending)


def _deliver_what_is_published(mailbox: Mailbox) -> None:
    fanout: Callable[..., Any] = sns._fanout

    def fanout_and_mail(
        topic_arn: str,
        msg_id: str,
        message: str,
        subject: str,
        structure: str = "",
        attributes: dict[str, Any] | None = None,
        *rest: Any,
        **more: Any,
    ) -> Any:
        if _key_problem(topic_arn):
            # What a service sends by itself, such as an alarm, is lost.
            return None
        topic = sns._topic_by_arn_any_scope(topic_arn) or {}
        named = attributes or more.get("message_attributes") or {}
        recipients = [
            entry["endpoint"]
            for entry in topic.get("subscriptions", [])
            if entry["protocol"] in _PROTOCOLS
            and entry.get("confirmed")
            and sns._matches_filter_policy(entry, named, message)
        ]
        mailbox.deliver(recipients, subject or "AWS Notification Message", message)
        return fanout(topic_arn, msg_id, message, subject, structure, attributes, *rest, **more)

    sns._fanout = fanout_and_mail


def _ask_the_topics_key() -> None:
    def asking(call: Callable[..., Any]) -> Callable[..., Any]:
        def call_asking(parameters: dict[str, Any]) -> Any:
            problem = _key_problem(sns._normalize_arn(sns._p(parameters, "TopicArn")))
            return sns._error(*problem, 400) if problem else call(parameters)

        return call_asking

    sns._publish, sns._publish_batch = asking(sns._publish), asking(sns._publish_batch)


def _key_problem(topic_arn: str) -> tuple[str, str] | None:
    """Return the code and the message of why a topic's key cannot be used; None if it can, or if there is none."""
    topic = sns._topic_by_arn_any_scope(topic_arn) or {}
    name = topic.get("attributes", {}).get("KmsMasterKeyId", "")
    if not name or name.endswith("alias/aws/sns"):
        return None
    key = kms._resolve_key(name)
    if key is None:
        return "KMSNotFound", f"Key {name} does not exist"
    code = {"Disabled": "KMSDisabled", "PendingDeletion": "KMSInvalidState"}.get(key["KeyState"])
    return (code, f"{key['Arn']} is {key['KeyState']}.") if code else None


def _ask_new_recipients(mailbox: Mailbox) -> None:
    subscribe, create = sns._subscribe, provisioners._sns_sub_create

    def subscribe_pending(parameters: dict[str, Any]) -> Any:
        before = {entry["arn"] for entry in _subscriptions(sns._p(parameters, "TopicArn"))}
        status, headers, body = subscribe(parameters)
        for entry in _subscriptions(sns._p(parameters, "TopicArn")):
            if entry["arn"] not in before and entry["protocol"] in _PROTOCOLS:
                mailbox.ask(sns._p(parameters, "TopicArn"), entry)
                body = body.replace(entry["arn"].encode(), b"pending confirmation")
        return status, headers, body

    def create_pending(logical_id: str, properties: Mapping[str, Any], stack_name: str) -> Any:
        arn, attributes = create(logical_id, properties, stack_name)
        for entry in _subscriptions(properties["TopicArn"]):
            if entry["arn"] == arn and entry["protocol"] in _PROTOCOLS:
                mailbox.ask(properties["TopicArn"], entry)
        return arn, attributes

    sns._subscribe = subscribe_pending
    # An update that replaces a subscription calls the function, a creation the handler.
    provisioners._sns_sub_create = create_pending
    provisioners._RESOURCE_HANDLERS["AWS::SNS::Subscription"]["create"] = create_pending


def _check_subjects() -> None:
    publish, publish_batch = sns._publish, sns._publish_batch

    def checked(subjects: Callable[[dict[str, Any]], list[str]], call: Callable[..., Any]) -> Callable[..., Any]:
        def call_checked(parameters: dict[str, Any]) -> Any:
            if any(len(text) > MAX_SUBJECT or re.search(r"[\x00-\x1f\x7f]", text) for text in subjects(parameters)):
                return sns._error("InvalidParameter", "Invalid parameter: Subject", 400)
            if len(sns._p(parameters, "Message").encode()) > MAX_MESSAGE_BYTES:
                return sns._error("InvalidParameter", "Invalid parameter: Message too long", 400)
            return call(parameters)

        return call_checked

    handle = sns.handle_request

    async def handle_checked(method: str, path: str, headers: Any, body: bytes, query: Any) -> Any:
        # ministack drops parameters without a value.
        if re.search(rb"(^|&)Subject=(&|$)", body):
            return sns._error("InvalidParameter", "Invalid parameter: Subject", 400)
        return await handle(method, path, headers, body, query)

    sns._publish = checked(lambda parameters: [sns._p(parameters, "Subject")], publish)
    sns._publish_batch = checked(
        lambda parameters: [entry.get("subject", "") for entry in sns._parse_batch_entries(parameters)], publish_batch
    )
    sns.handle_request = app.SERVICE_HANDLERS["sns"] = handle_checked


def _list_pending_as_such() -> None:
    """Give no ARN to a subscription that is pending."""

    def hiding(listing: Callable[..., Any]) -> Callable[..., Any]:
        def list_hiding(parameters: dict[str, Any]) -> Any:
            status, headers, body = listing(parameters)
            for _, subscription in _pending():
                body = body.replace(subscription["arn"].encode(), b"PendingConfirmation")
            return status, headers, body

        return list_hiding

    sns._list_subscriptions = hiding(sns._list_subscriptions)
    sns._list_subscriptions_by_topic = hiding(sns._list_subscriptions_by_topic)


def _subscriptions(topic_arn: str) -> list[dict[str, Any]]:
    return list((sns._topic_by_arn_any_scope(topic_arn) or {}).get("subscriptions", []))


def _pending() -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    for topic in list(sns._topics._data.values()):
        for subscription in topic["subscriptions"]:
            if subscription["protocol"] in _PROTOCOLS and not subscription.get("confirmed"):
                yield topic, subscription


def _scope(arn: str) -> tuple[str, str]:
    region, account = arn.split(":")[3:5]
    return account, region
