"""The one exception that a person is meant to read."""


class Problem(ValueError):
    """Something the user can mend, in one sentence: what was given, what is expected, what next."""
