"""Upload a package to the Hugging Face Hub in one commit, after all checks have passed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from r1_reward.publish.files import is_published
from r1_reward.publish.push import Package
from r1_reward.records.errors import UserError

if TYPE_CHECKING:
    from huggingface_hub import HfApi, ModelInfo

Answer = TypeVar("Answer")


def upload(package: Package, *, private: bool = False, token: str | None = None, endpoint: str | None = None) -> str:
    """Create the repository if needed, commit the package to its branch, and return the commit's URL.

    The same commit deletes files of an earlier push that this package does not have, such as adapters replaced by full
    weights. Files that a push never writes stay.

    Args:
        package: What :func:`r1_reward.publish.push.prepare` returned.
        private: Make a new repository private.
        token: Access token with write permission; by default ``HF_TOKEN`` or the token of ``hf auth login``.
        endpoint: URL of the Hub; by default ``HF_ENDPOINT`` or the public Hub.

    Raises:
        UserError: there is no token, the id belongs to a data set or space, or the Hub refuses or cannot be reached.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants, get_token

    token = token or get_token()
    if token is None:
        raise UserError("no access token: run `hf auth login`, or set HF_TOKEN to a token with write permission.")
    if constants.HF_HUB_OFFLINE:
        raise UserError("HF_HUB_OFFLINE is set, so nothing can be uploaded; unset it, or use --dry-run.")
    api = HfApi(endpoint=endpoint, token=token)
    repo, branch = package.hub_id, package.revision
    _ask("the access token", api.whoami)
    _require_named(api, package)
    found = _find_model(api, repo)
    if found is None:
        _require_free(api, repo)
        _ask(repo, lambda: api.create_repo(repo, private=private))
    elif private and not found.private:
        raise UserError(
            f"{repo}: already exists and is public; --private only applies to new repositories. "
            "Make it private in its settings on the Hub."
        )
    if branch != "main":
        _ask(repo, lambda: api.create_branch(repo, branch=branch, exist_ok=True))
    held = _ask(repo, lambda: api.list_repo_files(repo, revision=branch))
    stale = [name for name in held if is_published(name) and name not in package.files]
    operations: list[CommitOperationAdd | CommitOperationDelete] = [
        *(CommitOperationAdd(name, content) for name, content in sorted(package.files.items())),
        *(CommitOperationDelete(name) for name in stale),
    ]
    message = "Weights, processor, recipe and model card"
    commit = _ask(repo, lambda: api.create_commit(repo, operations, commit_message=message, revision=branch))
    return commit.commit_url


def _find_model(api: HfApi, repo: str) -> ModelInfo | None:
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        return _ask(repo, lambda: api.model_info(repo))
    except UserError as error:
        if isinstance(error.__cause__, RepositoryNotFoundError):
            return None
        raise


def _require_named(api: HfApi, package: Package) -> None:
    """Check that every model and data set named in the card exists: ``runs/sft`` looks like a Hub id, too."""
    for kind, name in package.named:
        if not _ask(name, lambda kind=kind, name=name: api.repo_exists(name, repo_type=kind)):  # type: ignore[misc]
            advice = "--base-model OWNER/NAME" if kind == "model" else "--data-card FOLDER"
            raise UserError(
                f"{name}: the run names this {kind}, which is neither a path relative to here nor on the Hub. Push "
                f"from the folder in which the run was started, or name it with {advice}."
            )


def _require_free(api: HfApi, repo: str) -> None:
    """Check that no data set or space has the model's name, which suggests a typo."""
    for kind in ("dataset", "space"):
        if _ask(repo, lambda kind=kind: api.repo_exists(repo, repo_type=kind)):  # type: ignore[misc]
            raise UserError(f"{repo}: this is a {kind} on the Hub, not a model; choose another name.")


def _ask(what: str, question: Callable[[], Answer]) -> Answer:
    """Return the Hub's answer to a call.

    Raises:
        UserError: the Hub refuses (with its own message) or cannot be reached.
    """
    from huggingface_hub.errors import HfHubHTTPError, HTTPError

    try:
        return question()
    except HfHubHTTPError as error:
        status = error.response.status_code
        advice = {
            401: "The token is invalid or has expired.", 403: "The token has no write permission there.",
        }.get(status, "")  # fmt: skip
        said = (error.server_message or str(error).strip()).splitlines()
        raise UserError(f"{what}: the Hub refused ({status}). {advice} {said[0] if said else ''}".strip()) from error
    except ValueError as error:  # the Hub finds the card's metadata invalid
        raise UserError(f"{what}: the Hub refused: {error}") from error
    except (HTTPError, ConnectionError) as error:
        raise UserError(f"{what}: the Hub cannot be reached ({error}); nothing was committed, try again.") from error
    except RuntimeError as error:  # huggingface_hub raises this when a file's upload fails
        raise UserError(f"{what}: {error} ({error.__cause__}); nothing was committed, try again.") from error
