"""What tells people: SNS and its e-mails, alarms, CloudTrail, and the keys that sign and encrypt."""

from . import mail, signing
from .mail import Mailbox

__all__ = ["Mailbox", "install"]


def install() -> Mailbox:
    """Make SNS, CloudWatch, CloudTrail and KMS as strict as the services; return who receives e-mails."""
    mailbox = Mailbox()
    mail.install(mailbox)
    signing.install()
    return mailbox
