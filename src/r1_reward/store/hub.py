"""Files of a checkpoint, whether it is a folder or an id on the Hugging Face Hub.

::

    checkpoint_file("runs/rl", "calibration.json")              # Path, or None if the folder has none
    checkpoint_file("me/judge", "calibration.json")             # the same, fetched once into the Hub's cache
    checkpoint_folder("me/judge")                               # everything, as a folder
"""

from __future__ import annotations

import logging
import re
from pathlib import Path

from r1_reward.records.errors import UserError
from r1_reward.store.cache import writing_cache

_LOG = logging.getLogger(__name__)
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_NAME_OR_ID = re.compile(rf"{_HUB_ID.pattern}|[A-Za-z0-9][\w.-]*")  # old models of the Hub have no owner


def is_hub_id(name: str) -> bool:
    """Say whether a name that is not a local path has the form OWNER/NAME of the Hub."""
    return _HUB_ID.fullmatch(name) is not None and not Path(name).exists()


def refuse_no_checkpoint(name: str | Path) -> None:
    """Raise UserError for a path that does not exist and could be no id of the Hub either, before the Hub is asked."""
    if not Path(name).exists() and _NAME_OR_ID.fullmatch(str(name)) is None:
        raise UserError(f"{name}: there is no such folder, and an id on the Hub has the form OWNER/NAME.")


def checkpoint_file(checkpoint: str | Path, name: str) -> Path | None:
    """Return where one file of a checkpoint lies on this machine, None if the checkpoint has none.

    If the Hub cannot be asked and the file is not in the cache, a warning says so.
    """
    local = Path(checkpoint) / name
    if local.is_file():
        return local
    if not is_hub_id(str(checkpoint)):
        return None
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError

    try:
        with writing_cache():
            return Path(hf_hub_download(str(checkpoint), name))
    except LocalEntryNotFoundError:  # no network; a plain checkpoint that is cached has no such file either
        _LOG.info("%s: whether it holds %s is not known: the Hub cannot be asked.", checkpoint, name)
    except EntryNotFoundError:
        pass
    except HfHubHTTPError as error:
        _LOG.warning("%s: whether it holds %s is not known: %s", checkpoint, name, str(error).splitlines()[0])
    return None


def checkpoint_folder(checkpoint: str | Path) -> Path:
    """Return a checkpoint as a folder; one of the Hub is fetched into its cache.

    Raises:
        UserError: it is neither a folder nor an id that the Hub, or its cache, knows.
    """
    if Path(checkpoint).is_dir():
        return Path(checkpoint)
    refuse_no_checkpoint(checkpoint)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        with writing_cache():
            return Path(snapshot_download(str(checkpoint)))
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        first = str(error).strip().splitlines()[0]
        raise UserError(f"{checkpoint}: cannot load this checkpoint, locally or from the Hub: {first}") from error
