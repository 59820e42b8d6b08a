"""The one exception that a person is meant to read."""


class Problem(ValueError):
    """Something that the user can mend. Its text is one sentence: what was given, what is expected, what to do next."""
