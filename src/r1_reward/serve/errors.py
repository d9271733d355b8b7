"""The error a client gets when its request fails: a status, a message, and the field at fault."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Self

from r1_reward.records.errors import UserError

_NAMED = re.compile(r"(\w+(?:\[\d+\])*): (.+)", re.DOTALL)


class Refusal(Exception):
    """End a request with this HTTP status; ``field`` names the part at fault, as in ``images[0]``."""

    def __init__(
        self, status: int, message: str, field: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.field, self.headers = status, message, field, dict(headers or {})

    @classmethod
    def wrong(cls, error: UserError) -> Self:
        """Return the refusal of an invalid request; a message such as ``question: ...`` names the field."""
        named = _NAMED.fullmatch(str(error))
        return cls(422, str(error)) if named is None else cls(422, named[2], named[1])

    def body(self) -> dict[str, dict[str, str | None]]:
        """Return the JSON body of an error."""
        return {"error": {"message": self.message, "field": self.field}}
