"""What can be wrong with a request or a bundle, in words for who sent or made it."""

from __future__ import annotations


class IntegrityError(Exception):
    """A file of a bundle is missing, or is not the one that was registered; names the file."""


class RequestError(Exception):
    """A request that cannot be answered; the message is for the client."""

    def __init__(self, message: str, status: int = 400, code: str = "bad_request") -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.code = code


class ModelError(Exception):
    """A model's answer is none; the message quotes nothing of the request."""
