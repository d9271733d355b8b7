"""Under what licence a model is published: asked of whoever publishes it, never guessed and never left open.

A fine-tuned model is bound by the terms of the model it was trained from, so that model's card is where to look. Which
identifiers there are the Hub knows (https://huggingface.co/docs/hub/repositories-licenses): it checks them before an
upload, and no list of them is kept here.
"""

from __future__ import annotations

import difflib
import re
from typing import NamedTuple

from r1_reward.records.errors import UserError

OTHER = "other"
"""The identifier of a licence that the Hub has none for; it comes with a name and a link."""

_IDENTIFIER = re.compile(r"[a-z0-9][a-z0-9.+-]*")
_OFTEN = (
    "apache-2.0", "mit", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0", "bsd-3-clause", "gpl-3.0",
    "llama3.2", "gemma", "openrail", OTHER,
)  # fmt: skip


class License(NamedTuple):
    """A licence as a model card has it."""

    id: str
    """Identifier of the Hub."""
    name: str | None = None
    """Of a licence that is ``other``."""
    link: str | None = None

    def __str__(self) -> str:
        return self.id if self.name is None else f"{self.name} ({self.link})"


def read_license(given: str | None, name: str | None, link: str | None, *, base: str | None) -> License:
    """Return the licence that was given, by identifier and, where that is ``other``, by name and link.

    ``base`` is the Hub id of the model that was trained, for the advice.

    Raises:
        UserError: none was given, or it is not one that a card can have.
    """
    if given is None or not given.strip() or given.strip().lower() == "unknown":
        said = "" if given is None else f" {given.strip() or 'nothing'} is none."
        raise UserError(
            f"--license: say under what licence the weights are published, by its identifier on the Hub.{said} "
            f"{where_to_look(base)} Often used: {', '.join(_OFTEN)} (with --license-name and --license-link)."
        )
    given = given.strip()
    if not _IDENTIFIER.fullmatch(given):
        near = difflib.get_close_matches(re.sub(r"[\s_]+", "-", given.lower()), _OFTEN, n=1)
        hint = f" Did you mean {near[0]}?" if near else f" One that the Hub does not list is {OTHER}."
        raise UserError(f"--license {given}: is not an identifier of the Hub, such as apache-2.0.{hint}")
    if given != OTHER:
        if name is not None or link is not None:
            raise UserError(f"--license-name and --license-link: are for --license {OTHER}; {given} needs none.")
        return License(given)
    if not (name or "").strip() or not re.fullmatch(r"https?://\S+", (link or "").strip()):
        raise UserError(
            f"--license {OTHER}: give its name and where its text is, --license-name NAME --license-link https://..."
        )
    return License(OTHER, str(name).strip(), str(link).strip())


def where_to_look(base: str | None) -> str:
    """Return a sentence that says where the terms of the base model are."""
    if base is None:
        return "The card of the model that was trained names its own, whose terms bind yours."
    return f"The base model's terms bind yours: https://huggingface.co/{base} names its licence at the top."
