"""Keep other libraries' progress bars and messages out of a command's output."""

from __future__ import annotations


def quiet_libraries() -> None:
    """Disable the progress bars of datasets and transformers, and transformers' messages below errors."""
    import datasets
    import transformers

    datasets.disable_progress_bars()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
