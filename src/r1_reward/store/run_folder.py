"""A run folder: what a run is, written once; who may write there; whether the same command resumes it.

Everything that is resumed asks this one place. ``run.json`` says what decides the results: settings, data and weights
(:mod:`r1_reward.store.identity`). A folder that holds anything else is refused, with what differs::

    run = {"model": "runs/rl", "seed": 0, "weights": weights_identity("runs/rl"), "data": "sha256:..."}
    with run_folder(out, run):                  # "out: holds another run (seed 1 there, 0 now). ..."
        ...                                     # no other process writes here meanwhile

Folders of releases that recorded less lack some of the fields. Where such a field is now ``None`` (weights behind a
server, media where rows name no files) nothing is lost and the folder is taken; otherwise nobody knows what is in it
and it is refused: "weights not recorded there, 'sha256:...' now".
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from r1_reward.records.errors import UserError
from r1_reward.store.files import read_json, write_json

RUN_FILE, LOCK = "run.json", ".lock"
NOTES = "notes"
"""The field of ``run.json`` that is for readers and decides nothing."""

REMARKS = "remarks.json"
"""What a run folder keeps for its report: what happened on the way, in sentences."""

Run = Mapping[str, Any]
ANOTHER_FOLDER = "Choose another folder with --out."


@contextmanager
def run_folder(
    folder: Path,
    run: Run,
    *,
    deciding: Callable[[Run], Run] = lambda run: run,
    file: str = RUN_FILE,
    advice: str = ANOTHER_FOLDER,
) -> Iterator[None]:
    """Create the folder of a run, or see that it holds this very run, and keep other processes out of it.

    ``deciding`` picks what of a ``run.json`` makes two runs the same one (default: all but ``notes``).

    Raises:
        UserError: the folder holds another run, is not empty and holds none, is in use, or cannot be written.
    """
    path = folder / file
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # What a start that was killed, or is under way, leaves is nobody's work.
        others = [other for other in folder.iterdir() if not other.name.endswith((LOCK, f"{file}.part"))]
    except OSError as error:
        raise UserError(f"{folder}: cannot create the run folder: {error.strerror}.") from error
    if others and not path.exists():
        raise UserError(f"{folder}: is not empty and holds no run. {advice}")
    with locked(folder / LOCK, folder):
        if path.exists():
            held = read_json(path)
            if not isinstance(held, dict):
                raise UserError(f"{path}: is not the {file} of a run. {advice}")
            require_same(folder, deciding(held), deciding(_as_json(run)), advice)
        else:
            write_json(path, dict(run))
        yield


def add_remarks(folder: Path, remarks: Sequence[str]) -> None:
    """Keep sentences that every report of the run says, each once, whichever call wrote them."""
    known = read_remarks(folder)
    if new := [remark for remark in remarks if remark not in known]:
        write_json(folder / REMARKS, [*known, *new])


def read_remarks(folder: Path) -> list[str]:
    """Return what :func:`add_remarks` has kept."""
    return list(read_json(folder / REMARKS)) if (folder / REMARKS).exists() else []


def require_same(place: Path, held: Run, wanted: Run, advice: str = ANOTHER_FOLDER) -> None:
    """Raise UserError, with what differs, if ``place`` holds another run than the one wanted."""
    if differing := list(_differences(held, _as_json(wanted))):
        raise UserError(f"{place}: holds another run ({'; '.join(differing)}). {advice}")


def _differences(held: Run, wanted: Run, above: str = "") -> Iterator[str]:
    """Yield in words where two runs differ, fields of fields by their full names."""
    for name in {**wanted, **held}:
        one, other = held.get(name), wanted.get(name)
        if (not above and name == NOTES) or one == other:
            continue
        if isinstance(one, dict) and isinstance(other, dict):
            yield from _differences(one, other, f"{above}{name}.")
            continue
        there, now = _shown(held, name, "not recorded"), _shown(wanted, name, "none")
        yield f"{above}{name} {there} there, {now} now"


def _shown(run: Run, name: str, absent: str) -> str:
    return repr(run[name]) if name in run else absent


def _as_json(run: Run) -> dict[str, Any]:
    """Return a run as it comes back from a file: tuples are lists there."""
    return json.loads(json.dumps(run))


@contextmanager
def locked(file: Path, place: Path) -> Iterator[None]:
    """Hold a lock file, which stays: another process may be waiting for that very file.

    Raises:
        UserError: another process holds it (``place`` is in use), or it cannot be written.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(file, timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise UserError(f"{place}: is in use; another process is writing there.") from error
    except OSError as error:
        raise UserError(f"{place}: cannot be written ({error.strerror}).") from error
    try:
        yield
    finally:
        lock.release()
