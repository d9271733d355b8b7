"""Render this package's Markdown templates; names from data are escaped."""

from __future__ import annotations

import re
from importlib import resources
from typing import Any

_MARKUP = re.compile(r"([\\`*_{}\[\]()<>#+!|~&])")


def render_markdown(template: str, **values: Any) -> str:
    """Render a template of this package, such as ``data/templates/data_card.md``.

    Templates can use the filters ``text``, ``count``, ``percent`` and ``number``.
    """
    from jinja2 import Environment, StrictUndefined

    # No autoescape: this is Markdown, and names from data go through `text`.
    environment = Environment(undefined=StrictUndefined, keep_trailing_newline=True)
    environment.filters |= {"text": escape_markdown, "count": _count, "percent": _percent, "number": _number}
    source = (resources.files("r1_reward") / template).read_text(encoding="utf-8")
    return environment.from_string(source).render(**values)


def escape_markdown(text: str) -> str:
    """Return text as one line of escaped Markdown."""
    return _MARKUP.sub(r"\\\1", " ".join(str(text).split()))


def _count(number: float) -> str:
    return f"{number:,.0f}"


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f} %"


def _number(value: float) -> str:
    return f"{value:.4g}"
