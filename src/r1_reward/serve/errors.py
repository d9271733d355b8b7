"""What a client is told when its request comes to nothing: a status, a sentence, and the field at fault."""

from __future__ import annotations

from collections.abc import Mapping


class Refusal(Exception):
    """A request ends with this HTTP status; ``field`` says which part of it is at fault, as in ``images[0]``."""

    def __init__(
        self, status: int, message: str, field: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.field, self.headers = status, message, field, dict(headers or {})

    def body(self) -> dict[str, dict[str, str | None]]:
        """Return the JSON of every error this server answers with."""
        return {"error": {"message": self.message, "field": self.field}}
