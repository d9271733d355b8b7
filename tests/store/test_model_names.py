"""The names of a model, on its card and in its configuration, and the dialect they imply."""

from __future__ import annotations

import json

import pytest
from hub_cache import put_in_cache

from r1_reward.records.errors import UserError
from r1_reward.store.model_names import chosen_dialect, dialect_fields


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "judge").mkdir()
    return tmp_path / "judge"


def chosen(model, asked="auto", **options):
    return chosen_dialect(asked, model, **options).name


def test_a_name_is_enough(tmp_path):
    assert chosen("CodeGoat24/UnifiedReward-7b", served=True) == "unified-reward"
    assert chosen("/srv/models/RM-R1-Qwen2.5-Instruct-7B", served=True) == "rm-r1"
    (tmp_path / "llava-critic-7b").mkdir()
    assert chosen(str(tmp_path / "llava-critic-7b")) == "pointwise"
    assert chosen(f"{tmp_path}/llava-critic-7b/") == "pointwise"


def test_parent_folders_do_not_count(tmp_path):
    (tmp_path / "UnifiedReward" / "runs" / "rl").mkdir(parents=True)
    assert chosen(tmp_path / "UnifiedReward" / "runs" / "rl") == "r1-reward"


def test_an_explicit_dialect_wins(folder):
    assert chosen("CodeGoat24/UnifiedReward-7b", "boxed", served=True) == "boxed"
    with pytest.raises(UserError, match="did you mean boxed"):
        chosen(folder, "boxd")


@pytest.mark.parametrize(
    ("card", "name"),
    [
        ("# UnifiedReward-Think-7b\n\nA judge.", "unified-reward-think"),
        ("---\nlicense: mit\n---\n\n# Unified-Reward-7b\n", "unified-reward"),
        ("---\nmodel_name: RM-R1-DeepSeek-Distilled-Qwen-7B\n---\nNo heading.", "rm-r1-reasoning"),
        (
            "---\nbase_model: gaotang/RM-R1-Qwen2.5-Instruct-7B\nbase_model_relation: quantized\n---\n",
            "rm-r1",
        ),
        ("---\nbase_model:\n- lmms-lab/LLaVA-Critic-R1-7B\nbase_model_relation: merge\n---\n", "boxed"),
        # A finetune may use another dialect, and so may a model that a text only mentions.
        ("---\nbase_model: gaotang/RM-R1-Qwen2.5-Instruct-7B\nbase_model_relation: finetune\n---\n# Mine", "r1-reward"),
        ("---\nbase_model: gaotang/RM-R1-Qwen2.5-Instruct-7B\n---\n# Mine", "r1-reward"),
        ("# Mine\n\nBetter than UnifiedReward-7b and [[A]] judges.\n\n# RM-R1", "r1-reward"),
        ("---\ntags: [r1-reward, unified-reward]\n---\n# From UnifiedReward-7b", "r1-reward"),  # our own card
        ("---\nmodel_name: [UnifiedReward\n---\n# UnifiedReward-7b", "unified-reward"),  # no YAML
        ("---\n- a list\n---\n# UnifiedReward-7b", "unified-reward"),
        ("---\nmodel_name: 7\ntags: 3\n---\n", "r1-reward"),
        ("", "r1-reward"),
        ("---", "r1-reward"),
    ],
)
def test_the_card_decides_if_the_name_does_not(folder, card, name):
    (folder / "README.md").write_text(card)
    assert chosen(folder) == name


@pytest.mark.parametrize(
    ("config", "name"),
    [
        ('{"_name_or_path": "CodeGoat24/UnifiedReward-qwen-7b"}', "unified-reward"),
        ('{"_name_or_path": "/home/RM-R1/models/qwen"}', "r1-reward"),
        ('{"_name_or_path": null}', "r1-reward"),
        ('{"architectures": ["LlavaCritic"]}', "r1-reward"),
        ("[]", "r1-reward"),
        ("{", "r1-reward"),
    ],
)
def test_then_the_configuration(folder, config, name):
    (folder / "config.json").write_text(config)
    assert chosen(folder) == name


def test_the_card_before_the_configuration(folder):
    (folder / "README.md").write_text("# RM-R1-Qwen2.5-Instruct-7B")
    (folder / "config.json").write_text(json.dumps({"_name_or_path": "UnifiedReward-7b"}))
    assert chosen(folder) == "rm-r1"


def test_the_default_dialect_is_not_recorded(folder):
    assert dialect_fields("auto", folder) == dialect_fields("r1-reward", folder) == {}
    assert dialect_fields("auto", "UnifiedReward-7b", served=True) == {"dialect": "unified-reward"}
    assert dialect_fields("json", folder) == {"dialect": "json"}


def test_a_model_of_the_hub_has_a_card_too(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    (folder / "README.md").write_text("# UnifiedReward-Think-7b")
    put_in_cache(tmp_path / "cache", "me/a-judge", folder)
    assert chosen("me/a-judge") == "unified-reward-think"
    assert chosen("me/a-judge", served=True) == "r1-reward"  # behind a server only its name is known


@pytest.mark.parametrize("name", ["runs/demo-seed0/rl", "./rl", "../rl", "/no/such/judge", "runs//rl", "runs/"])
def test_a_missing_path_is_not_looked_up_on_the_hub(name, tmp_path, monkeypatch):
    from r1_reward.models.checkpoint import load_model_and_processor
    from r1_reward.store.hub import checkpoint_folder

    monkeypatch.chdir(tmp_path)
    for load in (checkpoint_folder, load_model_and_processor):
        with pytest.raises(UserError, match=r"no such folder, and not a Hub id of the form OWNER/NAME"):
            load(name)


@pytest.mark.parametrize("name", ["nobody/nothing", "gpt2-of-nobody"])
def test_a_possible_id_is_looked_up_on_the_hub(name, tmp_path, monkeypatch):
    from r1_reward.store.hub import checkpoint_folder

    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="locally or from the Hub"):
        checkpoint_folder(name)
