"""The model card: metadata for the Hub and a page filled from files. Missing facts are reported as missing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import r1_reward
from r1_reward.judge.calibration import Calibration
from r1_reward.publish.facts import RECIPE, STAGES, TINY, Origin, Recipe, Training
from r1_reward.publish.files import Weights
from r1_reward.publish.license import License
from r1_reward.publish.measured import Measured, limitations
from r1_reward.publish.scrub import scrub
from r1_reward.records.markdown import render_markdown

if TYPE_CHECKING:
    from huggingface_hub import EvalResult, ModelCardData

_TASK = "image-text-to-text"
_BASELINES = {
    "always_1": "always the response shown first", "longer": "always the longer response",
    "shorter": "always the shorter response",
}  # fmt: skip


class CardFacts(NamedTuple):
    """Everything a card says."""

    hub_id: str
    revision: str
    license: License
    weights: Weights
    architecture: str
    origin: Origin
    recipe: Recipe | None
    training: Training | None
    data: dict[str, Any]
    calibration: Calibration | None
    measured: tuple[Measured, ...]
    max_new_tokens: int | None
    """Token limit of a judgment in training; the usage example applies the same limit."""


def render_card(facts: CardFacts) -> str:
    """Return the text of README.md."""
    known = [one for measured in facts.measured for one in limitations(measured)]
    body = render_markdown(
        "publish/templates/model_card.md",
        facts=facts,
        name=facts.hub_id.split("/")[-1],
        usage=usage(facts),
        command=_command(facts),
        stage=None if facts.recipe is None else STAGES[facts.recipe.stage],
        recipe=_recipe_rows(facts.recipe),
        adapters=facts.weights.kind == "adapters",
        scalar=facts.weights.kind == "scalar",
        tiny=TINY in facts.origin.steps,
        baselines=_BASELINES,
        limitations=known,
        version=r1_reward.__version__,
    )
    return f"---\n{metadata(facts).to_yaml()}\n---\n{body}"


def metadata(facts: CardFacts) -> ModelCardData:
    """Return the metadata at the head of the card."""
    from huggingface_hub import ModelCardData

    kind = facts.weights.kind
    # A run without a single readable verdict measured nothing, and one on other rows is not the benchmark's score.
    told = [one for one in facts.measured if one.complete and one.official and one.parse_rate != 0]
    results = [result for one in told for result in _eval_results(one)]
    more: dict[str, Any] = {}
    if facts.origin.base is not None:
        more["base_model_relation"] = "adapter" if kind == "adapters" else "finetune"
    tags = ["reward-model", "multimodal", "r1-reward", "arxiv:2505.02835"]
    tags += ["scalar-reward-model"] if kind == "scalar" else ["generative-reward-model"]
    algorithm = facts.recipe.config.get("algorithm") if facts.recipe is not None else None
    tags += [str(algorithm).replace("_", "-")] if algorithm else []
    return ModelCardData(
        license=facts.license.id,
        license_name=facts.license.name,
        license_link=facts.license.link,
        base_model=facts.origin.base,
        # A reward head generates no text, so the Hub's task does not apply.
        pipeline_tag=None if kind == "scalar" else _TASK,
        library_name={"adapters": "peft", "full": "transformers", "scalar": "r1-reward"}[kind],
        tags=tags,
        datasets=facts.data["hub"] or None,
        metrics=["accuracy"] if results else None,
        model_name=facts.hub_id.split("/")[-1] if results else None,
        eval_results=results or None,
        **more,
    )


def _eval_results(one: Measured) -> list[EvalResult]:
    from huggingface_hub import EvalResult

    values = {"accuracy": one.overall, "macro accuracy": one.macro, "ACC+": one.acc_plus}
    return [
        EvalResult(
            task_type=_TASK,
            task_name="preference between two responses",
            dataset_type=one.dataset,
            dataset_name=one.title,
            dataset_revision=one.revision,
            metric_type="accuracy",
            metric_name=f"{name} ({one.protocol})",
            metric_value=round(value, 4),
        )
        for name, value in values.items()
        if value is not None
    ]


def usage(facts: CardFacts) -> str:
    """Return a complete Python example; it creates the picture it asks about."""
    options = "" if facts.max_new_tokens is None else f", max_new_tokens={facts.max_new_tokens}"
    lines = ["from PIL import Image", "from r1_reward import RewardModel", ""]
    name = f'"{facts.hub_id}"'
    if facts.revision != "main":
        lines.insert(0, "from huggingface_hub import snapshot_download")
        name = f'snapshot_download({name}, revision="{facts.revision}")'
    lines += [
        f"model = RewardModel.from_pretrained({name}{options})",
        'picture = Image.new("RGB", (224, 224), "red")  # or a path: "photograph.jpg"',
        'verdict = model.compare("Which color fills the picture?", [picture], "It is red.", "It is green.")',
        "print(verdict.preferred, verdict.probability)  # 1, 2 or None; the probability that response 1 is better",
    ]
    if facts.weights.kind != "scalar":
        lines.append("print(verdict.votes[0].text)  # the reasoning")
    return "\n".join(lines) + "\n"


def _command(facts: CardFacts) -> str | None:
    if facts.revision != "main":
        return None
    options = "" if facts.max_new_tokens is None else f" --max-new-tokens {facts.max_new_tokens}"
    return (
        f'r1-reward compare --model {facts.hub_id}{options} --image photograph.jpg --question "What is shown?" \\\n'
        '    --a "A cup of coffee." --b "A glass of water."'
    )


def _recipe_rows(recipe: Recipe | None) -> Sequence[tuple[str, Any]]:
    if recipe is None:
        return ()
    unused = () if recipe.config.get("lora_rank") else ("lora_rank", "lora_alpha")
    keys = [key for key in RECIPE if recipe.config.get(key) is not None and key not in unused]
    return [(key, scrub(recipe.config[key], key)) for key in keys]
