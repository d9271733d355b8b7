"""A folder as `datasets` loads it, without network and without a cache that knows it from before."""

from __future__ import annotations

import tempfile
from pathlib import Path

import datasets


def loaded(folder, name=None):
    """Return {split: rows} of a folder, or of one configuration of it."""
    with tempfile.TemporaryDirectory() as cache:
        found = datasets.load_dataset(*map(str, filter(None, (folder, name))), cache_dir=cache, keep_in_memory=True)
        assert isinstance(found, datasets.DatasetDict), Path(folder)
        return dict(found)
