"""The one exception that a user is meant to read."""


class MirrorError(Exception):
    """A mistake or a condition that the user can mend.

    Its text is what the user sees: the value, what is wrong, what to do. Anything that is our
    own fault is not raised as this, so that it keeps its traceback.
    """
