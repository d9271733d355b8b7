"""The license of a published model: the publisher must name it; it is never guessed.

A fine-tuned model is bound by the terms of its base model, so look at that model's card. The Hub has the list of
identifiers (https://huggingface.co/docs/hub/repositories-licenses) and checks them before an upload, so this package
keeps no list.
"""

from __future__ import annotations

import difflib
import re
from typing import NamedTuple

from r1_reward.records.errors import UserError

OTHER = "other"
"""The identifier of licenses that the Hub does not list; it needs a name and a link."""

_IDENTIFIER = re.compile(r"[a-z0-9][a-z0-9.+-]*")
_OFTEN = (
    "apache-2.0", "mit", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0", "bsd-3-clause", "gpl-3.0",
    "llama3.2", "gemma", "openrail", OTHER,
)  # fmt: skip


class License(NamedTuple):
    """The license in a model card."""

    id: str
    """The license's identifier on the Hub."""
    name: str | None = None
    """Name of the license if ``id`` is ``other``."""
    link: str | None = None

    def __str__(self) -> str:
        return self.id if self.name is None else f"{self.name} ({self.link})"


def read_license(given: str | None, name: str | None, link: str | None, *, base: str | None) -> License:
    """Return the license with this identifier and, if that is ``other``, this name and link.

    ``base`` is the Hub id of the base model; error messages point to its card.

    Raises:
        UserError: no license was given, or a card cannot have it.
    """
    if given is None or not given.strip() or given.strip().lower() == "unknown":
        said = "" if given is None else f" {given.strip() or 'An empty value'} is not one."
        raise UserError(
            f"--license: name the license of the weights by its identifier on the Hub.{said} "
            f"{where_to_look(base)} Often used: {', '.join(_OFTEN)} (with --license-name and --license-link)."
        )
    given = given.strip()
    if not _IDENTIFIER.fullmatch(given):
        near = difflib.get_close_matches(re.sub(r"[\s_]+", "-", given.lower()), _OFTEN, n=1)
        hint = f" Did you mean {near[0]}?" if near else f" Use {OTHER} for a license that the Hub does not list."
        raise UserError(f"--license {given}: not a license identifier of the Hub, such as apache-2.0.{hint}")
    if given != OTHER:
        if name is not None or link is not None:
            raise UserError(f"--license-name and --license-link: only for --license {OTHER}; drop them for {given}.")
        return License(given)
    if not (name or "").strip() or not re.fullmatch(r"https?://\S+", (link or "").strip()):
        raise UserError(
            f"--license {OTHER}: give its name and a link to its text, --license-name NAME --license-link https://..."
        )
    return License(OTHER, str(name).strip(), str(link).strip())


def where_to_look(base: str | None) -> str:
    """Return a sentence that says where to find the terms of the base model."""
    if base is None:
        return "The base model's terms bind yours: its card names its license."
    return f"The base model's terms bind yours: https://huggingface.co/{base} names its license at the top."
