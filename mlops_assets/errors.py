"""What people get told in a sentence, and not in a traceback."""


class UserError(Exception):
    """Something that people can mend; the message names the place and how."""

    #: Whether it may pass by itself: a service that was busy, say.
    transient: bool = False
