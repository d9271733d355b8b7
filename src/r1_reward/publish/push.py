"""``r1-reward push``: what a published model consists of, put together from a trained folder.

    package = prepare(Path("runs/rl"), "me/judge", bench=[Path("runs/vl")], license="apache-2.0")
    write(package, Path("staged"))          # a dry run: the repository as a folder
    upload(package)                         # publish.upload

Weights are taken from where they lie and never copied for an upload; README.md, config.yaml and the name of the base
model are written anew.
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
    """A repository that is ready to be written or uploaded."""

    hub_id: str
    revision: str
    files: dict[str, Path | bytes]
    """By name: a file of the trained folder, or content made for the repository."""
    left_out: list[str]
    """What of the trained folder is not published."""
    notes: list[str]
    """What the card has to call unknown, and how to make it known."""
    named: list[tuple[str, str]]
    """Kind and id of what the card says is on the Hub: the base model and data sets."""

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
    """Return what would be published of a folder that ``r1-reward train`` or ``r1-reward demo`` wrote.

    Args:
        folder: The trained model; a ``checkpoint-N`` of a run will do.
        hub_id: OWNER/NAME of the repository.
        revision: Its branch.
        bench: Folders of ``r1-reward bench run``; those inside ``folder`` are found by themselves.
        data_card: Folder of ``r1-reward data mix``, where the run's own data do not lie in it.
        base_model: Hub id of the model that was trained, where the folder does not tell.
        license: The licence's identifier on the Hub; one must be given.
        license_name: Its name, where that is ``other``.
        license_link: Where its text is, where that is ``other``.
        judged_as: Other names under which the benchmark runs judged this model.

    Raises:
        UserError: the weights or the processor are missing or damaged, no licence is given, an option does not fit, or
            something private would leave with them.
    """
    check_hub_id(hub_id)
    weights = check_weights(folder)
    check_processor(folder)
    if base_model is not None and not is_hub_id(base_model):
        raise UserError(f"--base-model {base_model}: is no id on the Hub (OWNER/NAME).")
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
    """See that a repository can be called that; raises UserError if not."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(hub_id)
    except HFValidationError as error:
        raise UserError(f"{hub_id}: is no id for the Hub: {str(error).splitlines()[0]}") from error
    if "/" not in hub_id:
        raise UserError(f"{hub_id}: give the whole id with its owner, OWNER/{hub_id}.")


def write(package: Package, out: Path) -> None:
    """Write a package as a folder; raises UserError if the folder holds something already."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: is not empty; choose another folder with --out.")
    out.mkdir(parents=True, exist_ok=True)
    for name, content in package.files.items():
        if isinstance(content, Path):
            shutil.copyfile(content, out / name)
        else:
            (out / name).write_bytes(content)


def _name_base(folder: Path, files: dict[str, Path | bytes], base: str | None) -> str | None:
    """Let adapters name their model by its Hub id; return that id."""
    if ADAPTER_WEIGHTS not in files:
        return base
    if ADAPTER_CONFIG not in files:
        raise UserError(f"{folder}: {ADAPTER_CONFIG} is missing, so nobody could use these adapters.")
    manifest = read_json(folder / SCALAR[0]) if SCALAR[0] in files else {}
    own = manifest.get("base_model") or adapted_model(folder)
    name = base or own
    if name != TINY and not is_hub_id(name):
        raise UserError(
            f"{folder}: holds adapters only, of the local model {own}; nobody else could load them. Publish that model "
            "first and give its id with --base-model OWNER/NAME."
        )
    config = {**read_json(folder / ADAPTER_CONFIG), "base_model_name_or_path": name}
    files[ADAPTER_CONFIG] = _json(config)
    if manifest:
        files[SCALAR[0]] = _json({**manifest, "base_model": name})
    return None if name == TINY else name


def _rewritten(files: dict[str, Path | bytes]) -> dict[str, Path | bytes]:
    """Return the model's JSON files that name the place they came from, without it."""
    changed: dict[str, Path | bytes] = {}
    for name in _NAMED:
        content = files.get(name)
        value = read_json(content) if isinstance(content, Path) else None
        if isinstance(value, dict) and any(key in value for key in _PATHS):
            changed[name] = _json({key: item for key, item in value.items() if key not in _PATHS})
    if isinstance(manifest := files.get(SCALAR[0]), Path):
        # A whole scalar model needs no base; the manifest names one for adapters only.
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
        notes.append("base model: not known; --base-model OWNER/NAME")
    if facts.recipe is None and facts.data["demo"] is None:
        notes.append("recipe: the folder holds no config.yaml")
    if facts.training is None:
        notes.append("training: no log found")
    if facts.data["mixture"] is None and facts.data["demo"] is None:
        notes.append("data: no card; --data-card FOLDER of `r1-reward data mix`")
    if not facts.measured:
        notes.append("evaluation: nothing measured; --bench FOLDER of `r1-reward bench run`")
    notes += [f"evaluation: {one.title} is incomplete" for one in facts.measured if not one.complete]
    if facts.calibration is None and facts.weights.kind != "scalar":
        notes.append("probabilities: not calibrated; `r1-reward calibrate`")
    return notes
