"""Shared parts of reports: the template environment, number formats, and pictures embedded in the page.

    page = render("demo.html", metrics=metrics, pictures={"accuracy": svg_url(figure)})
    write_text(folder / "report.html", page)            # store.files: writes atomically

A model's texts are untrusted: autoescape is on for HTML, and an undefined name in a template is an error. A number that
was not measured (None, NaN, a missing key) is shown as a dash, never as zero.
"""

from __future__ import annotations

import base64
import io
import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL import Image

DASH = "–"


def render(template: str, **values: Any) -> str:
    """Render a template of ``studies/templates``.

    The filters ``percent``, ``points``, ``signed``, ``decimal``, ``duration``, ``interval``, ``signed_interval`` and
    ``detectable`` are the functions of this module.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

    environment = Environment(
        loader=PackageLoader("r1_reward.studies"),
        autoescape=select_autoescape(),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        percent=percent, points=points, signed=signed, decimal=decimal, duration=duration, interval=interval_text,
        signed_interval=signed_interval, detectable=detectable,
    )  # fmt: skip
    return environment.get_template(template).render(**values)


# ---- numbers


def number(value: Any) -> float | None:
    """Return a finite float, or None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def triple(interval: Any) -> tuple[float, float, float] | None:
    """Return (mean, low, high) of an interval from a JSON file, or None unless all three are numbers."""
    if not isinstance(interval, dict):
        return None
    mean = interval.get("mean", interval.get("accuracy"))
    mean, low, high = number(mean), number(interval.get("low")), number(interval.get("high"))
    return None if mean is None or low is None or high is None else (mean, low, high)


def percent(value: Any, digits: int = 1) -> str:
    """Return a share in [0, 1] as percent, or a dash if it was not measured."""
    known = number(value)
    return DASH if known is None else f"{100 * known:.{digits}f} %"


def points(value: Any) -> str:
    """Return a share or a difference of shares in percentage points, for a column that names the unit."""
    known = number(value)
    return DASH if known is None else f"{100 * known:.1f}"


def signed(value: Any) -> str:
    """Return a difference of shares in signed percentage points, with more digits if one would show a zero."""
    known = number(value)
    if known is None:
        return DASH
    if known == 0:
        return "0.0"
    digits = 1 if abs(known) >= 0.0005 else 3
    return f"{100 * known:+.{digits}f}".replace("-", "−")


def decimal(value: Any, digits: int = 1) -> str:
    """Return a number with a fixed number of digits, or a dash if it was not measured."""
    known = number(value)
    return DASH if known is None else f"{known:,.{digits}f}"


def duration(seconds: Any) -> str:
    """Return a duration in seconds in readable units."""
    known = number(seconds)
    if known is None:
        return DASH
    if known < 60:
        return f"{known:.1f} s" if known < 10 else f"{known:.0f} s"
    minutes, rest = divmod(round(known), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def interval_text(interval: Any) -> str:
    """Return a share with its interval in percentage points, ``74.0 [69.1, 78.9]``, or a dash if there is none."""
    return _interval(interval, points)


def signed_interval(interval: Any) -> str:
    """Return a difference of shares with its interval, ``+2.0 [−1.0, +5.0]``, or a dash if there is none."""
    return _interval(interval, signed)


def detectable(rates: Any) -> str:
    """Return in words which collapse rates `statistics.detectable_rates` found to differ from the reference's."""
    if rates is None:
        return "The reference has no run to compare with."
    words = {"at_most": "at most", "at_least": "at least"}
    found = " or ".join(f"{words[side]} {points(rates[side])} %" for side in words if rates[side] is not None)
    if not found:
        return "With so few seeds no collapse rate could be distinguished from the reference's."
    return (
        f"A collapse rate of {found} would be distinguished from the reference's with a power of 80 % (Fisher's exact "
        "test, 5 %); one nearer to it might not."
    )


def _interval(interval: Any, shown: Any) -> str:
    if not isinstance(interval, dict) or number(interval.get("mean")) is None:
        return DASH
    return f"{shown(interval['mean'])} [{shown(interval.get('low'))}, {shown(interval.get('high'))}]"


def bounds_text(interval: Any) -> str:
    """Return the bounds of a difference's interval in words, ``+5.0 to +15.0``, or a dash if any is unknown."""
    known = triple(interval)
    return DASH if known is None else f"{signed(known[1])} to {signed(known[2])}"


# ---- pictures


def png(figure: Figure, *, dpi: int = 110) -> bytes:
    """Return a figure as a PNG whose bytes depend only on its content."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()


def svg_url(figure: Figure) -> str:
    """Return a figure as a data URL of an SVG whose bytes depend only on its content."""
    import matplotlib

    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "r1-reward"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return data_url(buffer.getvalue(), "image/svg+xml")


def picture_url(image: Image.Image) -> str:
    """Return a picture as a lossless data URL."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return data_url(buffer.getvalue())


def data_url(content: bytes, kind: str = "image/png") -> str:
    """Return a file's content as a data URL."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
