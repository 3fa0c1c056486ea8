"""Lambda: what its functions see and may use, and how events reach them."""

from pathlib import Path

from . import actions, event_queue, invoke_config, roles, sandbox
from .event_queue import Delivery, EventQueue

__all__ = ["Delivery", "EventQueue", "install"]


def install(root: Path) -> EventQueue:
    """Make Lambda as strict as the service, and return the queue of its events."""
    sandbox.install(root)
    roles.install()
    actions.install()
    invoke_config.install()
    return event_queue.install()
