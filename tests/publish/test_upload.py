"""The upload: over HTTP against a Hub on loopback, and against the real one only if a token is set."""

from __future__ import annotations

import os
import uuid

import pytest
from hub_server import TOKEN, running_hub

from r1_reward.publish.push import prepare as prepared
from r1_reward.publish.upload import upload
from r1_reward.records.errors import UserError

BASE = "Qwen/Qwen2.5-VL-7B-Instruct"


def prepare(*arguments, license="apache-2.0", **options):
    return prepared(*arguments, license=license, **options)


@pytest.fixture
def hub(monkeypatch):
    # Xet is another protocol behind the same calls; the test server only supports plain uploads.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with running_hub() as running:
        running.add(BASE)
        yield running


def push(hub, trained, hub_id="me/judge", *, token=TOKEN, private=False, **options):
    return upload(prepare(trained, hub_id, **options), private=private, token=token, endpoint=hub.url)


def test_a_new_repository_holds_the_package_after_one_commit(hub, trained):
    package = prepare(trained, "me/judge")
    url = push(hub, trained, private=True)
    assert url == f"{hub.url}/me/judge/commit/{'1' * 40}"
    contents = {name: c if isinstance(c, bytes) else c.read_bytes() for name, c in package.files.items()}
    assert hub.files("me/judge") == contents
    assert hub.repos["models", "me/judge"]["private"] is True
    assert len(hub.commits) == 1
    assert "POST /api/validate-yaml" in hub.asked


def test_a_second_push_replaces_what_a_push_writes_and_nothing_else(hub, trained):
    old = {"adapter_model.safetensors": b"a", "adapter_config.json": b"{}", "LICENSE": b"l", "plots/x.png": b"p"}
    hub.add("me/judge", files={**old, "README.md": b"old"})
    push(hub, trained)
    files = hub.files("me/judge")
    assert set(files) == {*prepare(trained, "me/judge").files, "LICENSE", "plots/x.png"}
    assert files["README.md"].startswith(b"---\n")


def test_a_push_to_a_branch_leaves_main_alone(hub, trained):
    hub.add("me/judge", files={"README.md": b"old"})
    push(hub, trained, revision="v2")
    assert hub.files("me/judge") == {"README.md": b"old"}
    assert "model.safetensors" in hub.files("me/judge", "v2")


def test_errors_are_found_before_anything_is_changed(hub, trained, monkeypatch):
    def refused(match, hub_id="me/judge", **options):
        with pytest.raises(UserError, match=match):
            push(hub, trained, hub_id, **options)

    refused(r"the access token: the Hub refused \(401\). The token is invalid", token="wrong")
    hub.add("me/data", "datasets")
    refused("me/data: this is a dataset on the Hub, not a model", "me/data")
    hub.add("me/app", "spaces")
    refused("me/app: this is a space on the Hub, not a model", "me/app")
    hub.add("me/public")
    refused("me/public: already exists and is public; --private only applies to new", "me/public", private=True)
    hub.forbidden.add("them/judge")
    refused(r"them/judge: the Hub refused \(403\). The token has no write permission there", "them/judge")
    del hub.repos["models", BASE]
    refused(f"{BASE}: the run names this model, which is neither a path relative to here nor on the Hub")
    hub.add(BASE)
    refused("the Hub refused: (?s:.*)bad metadata", license="not-valid")
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    refused("no access token: run `hf auth login`", token=None)
    assert hub.commits == [] and hub.objects == {}


def test_a_broken_connection_commits_nothing(hub, trained):
    hub.broken_uploads = True
    with pytest.raises(UserError, match="nothing was committed"):
        push(hub, trained)
    assert hub.commits == []
    gone = hub.url.rsplit(":", 1)[0] + ":9"
    with pytest.raises(UserError, match="the Hub cannot be reached"):
        upload(prepare(trained, "me/judge"), token=TOKEN, endpoint=gone)


@pytest.mark.hub
def test_the_real_hub_accepts_a_package(trained):
    if not os.environ.get("R1_REWARD_PUSH_TEST") or os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0"):
        pytest.skip(
            "creates and deletes a private repository of an owner; set R1_REWARD_PUSH_TEST=OWNER, HF_TOKEN and "
            "HF_HUB_OFFLINE=0"
        )
    from huggingface_hub import HfApi, ModelCard

    hub_id = f"{os.environ['R1_REWARD_PUSH_TEST']}/r1-reward-test-{uuid.uuid4().hex[:8]}"
    try:
        upload(prepare(trained, hub_id), private=True)
        assert ModelCard.load(hub_id).data.library_name == "transformers"
    finally:
        HfApi().delete_repo(hub_id, missing_ok=True)
