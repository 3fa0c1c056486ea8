"""What tells people: SNS and its e-mails, alarms, CloudTrail, and the keys that sign."""

from ..clock import Clock
from . import alarms, mail, signing, trail
from .mail import Mailbox

__all__ = ["Mailbox", "install"]


def install(clock: Clock) -> Mailbox:
    """Make SNS, CloudWatch, CloudTrail and KMS as strict as the services; return who receives e-mails.

    Args:
        clock: by which alarms are evaluated, and pending subscriptions forgotten.
    """
    mailbox = Mailbox(clock)
    mail.install(mailbox, clock)
    signing.install()
    alarms.install(clock)
    trail.install()
    return mailbox
