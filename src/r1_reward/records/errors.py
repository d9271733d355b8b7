"""Errors meant for a person: what was wrong, where, and what to do about it.

The command prints the message of a :class:`UserError` and exits with code 2; library users can catch it.
"""


class UserError(Exception):
    """The input, not the program, is at fault; the message alone tells how to mend it."""
