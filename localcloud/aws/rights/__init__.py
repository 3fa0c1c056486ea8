"""Who may do what: conditions, variables, boundaries, roles that are passed, and services that act for somebody."""

from . import acting, boundaries, judgement, pass_role


def install() -> None:
    """Judge as IAM does, and refuse to judge what is not known here."""
    boundaries.install()
    pass_role.install()
    judgement.install(acting.require)
