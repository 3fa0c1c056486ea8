"""The progress of a command: of one mirror as a checklist, of many as a board; live on a terminal, plain elsewhere."""

from .board import Board, Row
from .checklist import Checklist
from .steps import Confirm, Say, Steps

__all__ = ["Board", "Checklist", "Confirm", "Row", "Say", "Steps"]
