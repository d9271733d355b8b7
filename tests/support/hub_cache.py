"""A Hugging Face cache that holds a folder under a Hub id, as if it had been downloaded."""

from __future__ import annotations

import shutil
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def put_in_cache(cache: Path, hub_id: str, folder: Path) -> None:
    """Lay ``folder`` into the Hub's cache (HF_HUB_CACHE) as the whole of ``hub_id``'s main branch."""
    repository = cache / f"models--{hub_id.replace('/', '--')}"
    shutil.copytree(folder, repository / "snapshots" / COMMIT)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
