"""The folder of a study: the study's identity, and the result or the error of every cell."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from r1_reward.store.files import read_json
from r1_reward.store.run_folder import require_same, run_folder
from r1_reward.studies.ablate.study import Cell, Study, identity

STUDY_FILE = "study.json"
"""The identity of the study."""
START_FILE = "start.json"
"""The metrics of the start itself."""
RESULT_FILE, ERROR_FILE = "result.json", "error.txt"
"""Files in a cell's folder; it has one or the other."""


def study_folder(study: Study, out: Path) -> AbstractContextManager[None]:
    """Claim the folder for a study, or check that it holds this study; see :mod:`r1_reward.store.run_folder`.

    A folder of a release without ``study.json`` cannot be extended; ``--report-only`` still shows it.
    """
    advice = "Choose another folder with --out; --report-only still shows results of an earlier release."
    return run_folder(out, identity(study), file=STUDY_FILE, advice=advice)


def require_same_study(study: Study, out: Path) -> None:
    """Check that a folder with an identity holds this study; raises UserError if not."""
    path = out / STUDY_FILE
    if path.exists():
        require_same(out, read_json(path), identity(study))


def result_of(cell: Cell, out: Path, referees: Mapping[str, str] | None = None) -> dict[str, Any] | None:
    """Return the result of a cell, or None; without ``referees`` their weights are not compared.

    Raises:
        UserError: The result is from other options.
    """
    path = cell.folder(out) / RESULT_FILE
    if not path.exists():
        return None
    result = read_json(path)
    stored = result.get("identity") or {"options": result["options"]}
    wanted = cell.identity(referees if referees is not None else {})
    if referees is None:
        stored, wanted = ({"options": one["options"]} for one in (stored, wanted))
    require_same(path.parent, stored, wanted)
    return None if _is_made_up(result) else result


def finished(study: Study, out: Path) -> list[dict[str, Any]]:
    """Return the results of the cells that have one.

    Raises:
        UserError: A cell of the folder was run with other options than the study's.
    """
    return [result for cell in study.cells() if (result := result_of(cell, out)) is not None]


def failed(study: Study, out: Path) -> dict[str, str]:
    """Return the error of every cell that was run and has no result, by the cell's name."""
    errors = {}
    for cell in study.cells():
        folder = cell.folder(out)
        if (folder / ERROR_FILE).exists():
            errors[str(cell)] = (folder / ERROR_FILE).read_text(encoding="utf-8").split("\n", 1)[0]
        elif (folder / RESULT_FILE).exists() and _is_made_up(result := read_json(folder / RESULT_FILE)):
            errors[str(cell)] = result["failure"]
    return errors


def _is_made_up(result: Mapping[str, Any]) -> bool:
    """Return whether a file of an earlier version has numbers for a run that ended with an error."""
    from r1_reward.train.monitor import SAMPLING_FAILED

    return result["failure"] is not None and SAMPLING_FAILED not in result["failure"]
