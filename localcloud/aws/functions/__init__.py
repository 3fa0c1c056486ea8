"""Lambda: what its functions see and may use, and how events reach them."""

from . import event_queue


def install() -> None:
    """Make Lambda as strict as the service."""
    event_queue.install()
