"""``python -m codecommit_mirror``."""

from .cli import main

main()
