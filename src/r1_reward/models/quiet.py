"""Keep other libraries' bars and notices out of a command's own display."""

from __future__ import annotations


def quiet_libraries() -> None:
    """Switch off the bars of datasets and transformers, and transformers' notices below errors."""
    import datasets
    import transformers

    datasets.disable_progress_bars()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
