"""``r1-reward push``: assemble a model repository from a trained folder.

    package = prepare(Path("runs/rl"), "me/judge", bench=[Path("runs/vl")], license="apache-2.0")
    write(package, Path("staged"))          # a dry run: the repository as a folder
    upload(package)                         # publish.upload

An upload reads the weights in place, without a copy. README.md, config.yaml and the name of the base model are
rewritten.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from r1_reward.judge.calibration import Calibration
from r1_reward.publish.card import CardFacts, render_card
from r1_reward.publish.facts import TINY, find_origin, read_data, read_recipe, read_training
from r1_reward.publish.files import SCALAR, check_processor, check_weights, left_out, published_files
from r1_reward.publish.license import read_license
from r1_reward.publish.measured import Measured, demo_metrics, find_runs, read_demo, read_run
from r1_reward.publish.scrub import private_texts, require_clean, scrub
from r1_reward.records.errors import UserError
from r1_reward.store.adapters import ADAPTER_CONFIG, ADAPTER_WEIGHTS, adapted_model
from r1_reward.store.files import read_json
from r1_reward.store.hub import is_hub_id

_NAMED = ("config.json", "tokenizer_config.json", "processor_config.json", "preprocessor_config.json")
_PATHS = ("_name_or_path", "name_or_path")


class Package(NamedTuple):
    """A repository, ready to be written or uploaded."""

    hub_id: str
    revision: str
    files: dict[str, Path | bytes]
    """By name: a file of the trained folder, or content generated for the repository."""
    left_out: list[str]
    """Names in the trained folder that are not published."""
    notes: list[str]
    """What the card reports as unknown, and how to supply it."""
    named: list[tuple[str, str]]
    """Kind and id of the base model and data sets that the card refers to on the Hub."""

    def sizes(self) -> dict[str, int]:
        """Return the bytes of each file, by name."""
        return {
            name: content.stat().st_size if isinstance(content, Path) else len(content)
            for name, content in sorted(self.files.items())
        }


def prepare(
    folder: Path,
    hub_id: str,
    *,
    revision: str = "main",
    bench: Sequence[Path] = (),
    data_card: Path | None = None,
    base_model: str | None = None,
    license: str | None = None,
    license_name: str | None = None,
    license_link: str | None = None,
    judged_as: Sequence[str] = (),
) -> Package:
    """Return what a push would publish of a folder that ``r1-reward train`` or ``r1-reward demo`` wrote.

    Args:
        folder: The trained model, or a ``checkpoint-N`` of a run.
        hub_id: OWNER/NAME of the repository.
        revision: Branch of the repository.
        bench: Folders of ``r1-reward bench run``; those inside ``folder`` are found automatically.
        data_card: Folder of ``r1-reward data mix``, if the run's own data are elsewhere.
        base_model: Hub id of the base model, if the folder does not name it.
        license: The license's identifier on the Hub; required.
        license_name: Name of the license, if ``license`` is ``other``.
        license_link: Link to its text, if ``license`` is ``other``.
        judged_as: Other names under which the benchmark runs judged this model.

    Raises:
        UserError: the weights or the processor are missing or damaged, no license is given, an option is invalid, or
            a file contains something private.
    """
    check_hub_id(hub_id)
    weights = check_weights(folder)
    check_processor(folder)
    if base_model is not None and not is_hub_id(base_model):
        raise UserError(f"--base-model {base_model}: not an id on the Hub (OWNER/NAME).")
    files: dict[str, Path | bytes] = {path.name: path for path in published_files(folder)}
    base_model = _name_base(folder, files, base_model)
    origin = find_origin(folder, base=base_model)
    terms = read_license(license, license_name, license_link, base=origin.base)
    recipe = read_recipe(folder)
    runs = {path.resolve(): path for path in (*find_runs(folder), *bench)}
    names = [str(folder), hub_id, *judged_as]
    found = [read_run(path, names) for path in runs.values()]
    facts = CardFacts(
        hub_id=hub_id,
        revision=revision,
        license=terms,
        weights=weights,
        architecture=_architecture(folder),
        origin=origin,
        recipe=recipe,
        training=read_training(folder),
        data=read_data(folder, recipe, data_card),
        calibration=Calibration.load(folder),
        measured=_with_demo(found, folder),
        max_new_tokens=_trained_length(folder, recipe.config if recipe else {}),
    )
    files |= _rewritten(files)
    if recipe is not None:
        files["config.yaml"] = yaml.safe_dump(scrub(recipe.config), sort_keys=False, allow_unicode=True).encode()
    files["README.md"] = render_card(facts).encode()
    private = private_texts(folder)
    for name, content in files.items():
        require_clean(name, content, private)
    named = [("model", facts.origin.base)] if facts.origin.base else []
    named += [("dataset", name) for name in facts.data["hub"]]
    return Package(hub_id, revision, files, left_out(folder), _notes(facts), named)


def check_hub_id(hub_id: str) -> None:
    """Check that a repository can have this name.

    Raises:
        UserError: the Hub does not allow it, or the owner is missing.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(hub_id)
    except HFValidationError as error:
        raise UserError(f"{hub_id}: not a valid Hub id: {str(error).splitlines()[0]}") from error
    if "/" not in hub_id:
        raise UserError(f"{hub_id}: give the full id with its owner, OWNER/{hub_id}.")


def write(package: Package, out: Path) -> None:
    """Write a package to a folder.

    Raises:
        UserError: the folder is not empty.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: not an empty folder; choose another with --out.")
    out.mkdir(parents=True, exist_ok=True)
    for name, content in package.files.items():
        if isinstance(content, Path):
            shutil.copyfile(content, out / name)
        else:
            (out / name).write_bytes(content)


def _name_base(folder: Path, files: dict[str, Path | bytes], base: str | None) -> str | None:
    """Make the adapters refer to their base model by its Hub id; return that id."""
    if ADAPTER_WEIGHTS not in files:
        return base
    if ADAPTER_CONFIG not in files:
        raise UserError(f"{folder}: {ADAPTER_CONFIG} is missing; the adapters cannot be loaded without it.")
    manifest = read_json(folder / SCALAR[0]) if SCALAR[0] in files else {}
    own = manifest.get("base_model") or adapted_model(folder)
    name = base or own
    if name != TINY and not is_hub_id(name):
        raise UserError(
            f"{folder}: holds only adapters for the local model {own}, so nobody else could load them. Publish that "
            "model first and give its id with --base-model OWNER/NAME."
        )
    config = {**read_json(folder / ADAPTER_CONFIG), "base_model_name_or_path": name}
    files[ADAPTER_CONFIG] = _json(config)
    if manifest:
        files[SCALAR[0]] = _json({**manifest, "base_model": name})
    return None if name == TINY else name


def _rewritten(files: dict[str, Path | bytes]) -> dict[str, Path | bytes]:
    """Return the model's JSON files that contain the path they were loaded from, with that path removed."""
    changed: dict[str, Path | bytes] = {}
    for name in _NAMED:
        content = files.get(name)
        value = read_json(content) if isinstance(content, Path) else None
        if isinstance(value, dict) and any(key in value for key in _PATHS):
            changed[name] = _json({key: item for key, item in value.items() if key not in _PATHS})
    if isinstance(manifest := files.get(SCALAR[0]), Path):
        # A full scalar model needs no base; the manifest names one only for adapters.
        changed[SCALAR[0]] = _json({**read_json(manifest), "base_model": None})
    return changed


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode()


def _architecture(folder: Path) -> str:
    path = folder / "config.json"
    config = read_json(path) if path.is_file() else {}
    names = config.get("architectures") if isinstance(config, dict) else None
    return str(names[0]) if names else "Adapters"


def _with_demo(found: Sequence[Measured], folder: Path) -> tuple[Measured, ...]:
    demo = read_demo(folder.resolve())
    return (*found, *([] if demo is None else [demo]))


def _trained_length(folder: Path, config: dict[str, Any]) -> int | None:
    demo = demo_metrics(folder)
    length = demo["config"].get("max_new_tokens") if demo else config.get("max_completion_length")
    return length if isinstance(length, int) else None


def _notes(facts: CardFacts) -> list[str]:
    notes = []
    if facts.origin.base is None and TINY not in facts.origin.steps:
        notes.append("base model: unknown; add --base-model OWNER/NAME")
    if facts.recipe is None and facts.data["demo"] is None:
        notes.append("recipe: no config.yaml in the folder")
    if facts.training is None:
        notes.append("training: no log found")
    if facts.data["mixture"] is None and facts.data["demo"] is None:
        notes.append("data: no data card; add --data-card FOLDER of `r1-reward data mix`")
    if not facts.measured:
        notes.append("evaluation: nothing measured; add --bench FOLDER of `r1-reward bench run`")
    notes += [f"evaluation: {one.title} is incomplete" for one in facts.measured if not one.complete]
    if facts.calibration is None and facts.weights.kind != "scalar":
        notes.append("probabilities: not calibrated; run `r1-reward calibrate`")
    return notes
