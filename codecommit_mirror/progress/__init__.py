"""The progress of a command, mirror by mirror: live on a terminal, plain lines elsewhere."""

from .board import Board, Confirm, Row
from .clean import clean
from .current import say, step, working_on

__all__ = ["Board", "Confirm", "Row", "clean", "say", "step", "working_on"]
