"""Files of a checkpoint, which is a folder or an id on the Hugging Face Hub.

::

    checkpoint_file("runs/rl", "calibration.json")              # Path, or None if the folder does not have it
    checkpoint_file("me/judge", "calibration.json")             # the same, downloaded once into the Hub's cache
    checkpoint_folder("me/judge")                               # all files, as a folder
"""

from __future__ import annotations

import logging
import re
from pathlib import Path

from r1_reward.records.errors import UserError
from r1_reward.store.cache import writing_cache

_LOG = logging.getLogger(__name__)
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_NAME_OR_ID = re.compile(rf"{_HUB_ID.pattern}|[A-Za-z0-9][\w.-]*")  # old models on the Hub have no owner


def is_hub_id(name: str) -> bool:
    """Return whether a name has the Hub's form OWNER/NAME and is not a local path."""
    return _HUB_ID.fullmatch(name) is not None and not Path(name).exists()


def refuse_no_checkpoint(name: str | Path) -> None:
    """Raise UserError, without a request to the Hub, if a name is neither an existing path nor a possible Hub id."""
    if not Path(name).exists() and _NAME_OR_ID.fullmatch(str(name)) is None:
        raise UserError(f"{name}: no such folder, and not a Hub id of the form OWNER/NAME.")


def checkpoint_file(checkpoint: str | Path, name: str) -> Path | None:
    """Return the local path of one file of a checkpoint, None if the checkpoint does not have it.

    If the Hub returns an error, a warning says so.
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
    except LocalEntryNotFoundError:  # no network; for a cached checkpoint this is normal, so no warning
        _LOG.info("%s: cannot tell whether it has %s: the Hub cannot be reached.", checkpoint, name)
    except EntryNotFoundError:
        pass
    except HfHubHTTPError as error:
        _LOG.warning("%s: cannot tell whether it has %s: %s", checkpoint, name, str(error).splitlines()[0])
    return None


def checkpoint_folder(checkpoint: str | Path) -> Path:
    """Return a checkpoint as a folder, downloading it into the Hub's cache if needed.

    Raises:
        UserError: If it is neither a folder nor an id known to the Hub or its cache.
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
