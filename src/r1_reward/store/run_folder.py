"""Run folders: a record of what a run is, a lock against other writers, and the check for resuming.

Everything that can be resumed goes through this module. ``run.json`` records what determines the results: settings,
data and weights (:mod:`r1_reward.store.identity`). A folder with another run is rejected, with the differences::

    run = {"model": "runs/rl", "seed": 0, "weights": weights_identity("runs/rl"), "data": "sha256:..."}
    with run_folder(out, run):                  # "out: contains a different run (seed 1 there, 0 now). ..."
        ...                                     # no other process writes here meanwhile

Earlier releases recorded fewer fields. If a missing field is now ``None`` (weights behind a server, media of rows that
name no files), the folder is accepted. Otherwise its value is unknown, and the folder is rejected: "weights not
recorded there, 'sha256:...' now".
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from r1_reward.records.errors import UserError
from r1_reward.store.files import read_json, write_json

RUN_FILE, LOCK = "run.json", ".lock"
NOTES = "notes"
"""The field of ``run.json`` that is for readers and is not compared."""

REMARKS = "remarks.json"
"""The file of sentences for the report about what happened during a run."""

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
    """Create the folder of a run, or check that it has this same run, and lock it against other processes.

    ``deciding`` selects the part of a ``run.json`` that must be equal (default: all but ``notes``). If a run
    fails before writing anything, for example because no API key is set, its ``run.json`` is removed, so the folder can
    be used for another run.

    Raises:
        UserError: If the folder contains a different run, has other files but no run, is in use, or cannot be written.
    """
    path = folder / file
    try:
        folder.mkdir(parents=True, exist_ok=True)
        others = _contents(folder, file)
    except OSError as error:
        raise UserError(f"{folder}: cannot create the run folder: {error.strerror}.") from error
    if others and not path.exists():
        raise UserError(f"{folder}: is not empty and contains no run. {advice}")
    with locked(folder / LOCK, folder):
        if claimed := path.exists():
            held = read_json(path)
            if not isinstance(held, dict):
                raise UserError(f"{path}: is not a valid {file} of a run. {advice}")
            require_same(folder, deciding(held), deciding(_as_json(run)), advice)
        else:
            write_json(path, dict(run))
        try:
            yield
        except BaseException:
            if not claimed:
                with suppress(OSError):  # the error to report is the run's
                    _release(folder, file)
            raise


def _contents(folder: Path, file: str) -> set[str]:
    """Return the names of the files in a folder, without those of a start that was killed or is in progress."""
    return {other.name for other in folder.iterdir() if not other.name.endswith((LOCK, f"{file}.part"))}


def _release(folder: Path, file: str) -> None:
    """Empty the folder of a run that has written nothing but its ``file``, empty files and folders."""
    written = (path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)
    if all(path == folder / file or path.name.endswith(LOCK) for path in written):
        for name in _contents(folder, file):
            path = folder / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def add_remarks(folder: Path, remarks: Sequence[str]) -> None:
    """Save sentences for all reports of the run, each once."""
    known = read_remarks(folder)
    if new := [remark for remark in remarks if remark not in known]:
        write_json(folder / REMARKS, [*known, *new])


def read_remarks(folder: Path) -> list[str]:
    """Return the sentences saved by :func:`add_remarks`."""
    return list(read_json(folder / REMARKS)) if (folder / REMARKS).exists() else []


def require_same(place: Path, held: Run, wanted: Run, advice: str = ANOTHER_FOLDER) -> None:
    """Raise UserError, with the differences, if the run at ``place`` is not the one wanted."""
    if differing := list(_differences(held, _as_json(wanted))):
        raise UserError(f"{place}: contains a different run ({'; '.join(differing)}). {advice}")


def _differences(held: Run, wanted: Run, above: str = "") -> Iterator[str]:
    """Yield the differences of two runs in words; nested fields have dotted names."""
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
    """Return a run as JSON reads it back: tuples become lists."""
    return json.loads(json.dumps(run))


@contextmanager
def locked(file: Path, place: Path) -> Iterator[None]:
    """Hold a lock file; it is not deleted, since another process may be waiting for it.

    Raises:
        UserError: If another process holds it (``place`` is in use), or it cannot be written.
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
