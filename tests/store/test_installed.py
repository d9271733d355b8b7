"""What is installed: the commit of a checkout and of an install from git, requirements that are not met, extras."""

from __future__ import annotations

import json
import subprocess

import pytest

import r1_reward
from r1_reward.records.errors import Unknown, UserError
from r1_reward.store import installed
from r1_reward.store.installed import Unmet, commit, extras, unmet, version_of, version_text


def git(folder, *arguments):
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run(["git", "-C", folder, *identity, *arguments], check=True, capture_output=True)


@pytest.fixture
def checkout(tmp_path):
    """The package's folder in a repository with one commit."""
    package = tmp_path / "src" / "r1_reward"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("x = 1\n")
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "one")
    return package


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A function that installs a distribution: its name, version, requirements and, if it has any, extras."""
    monkeypatch.syspath_prepend(tmp_path)

    def install(name, version, *requires, extras=(), **files):
        folder = tmp_path / f"{name.replace('-', '_')}-{version}.dist-info"
        folder.mkdir()
        lines = ["Metadata-Version: 2.4", f"Name: {name}", f"Version: {version}"]
        lines += [f"Requires-Dist: {one}" for one in requires] + [f"Provides-Extra: {one}" for one in extras]
        (folder / "METADATA").write_text("\n".join(lines) + "\n")
        for file, text in files.items():
            (folder / f"{file}.json").write_text(text)
        return tmp_path

    return install


def test_the_commit_of_a_checkout_and_whether_it_was_changed(checkout):
    root = checkout.parents[1]
    head = subprocess.run(["git", "-C", root, "rev-parse", "HEAD"], capture_output=True, text=True).stdout.strip()
    assert commit(checkout) == head[:7]
    (root / "untracked").touch()
    assert commit(checkout) == head[:7]
    (checkout / "__init__.py").write_text("x = 2\n")
    assert commit(checkout) == f"{head[:7]}+changes"


def test_a_checkout_whose_commit_git_does_not_tell_is_unknown_and_not_a_release(checkout, monkeypatch):
    monkeypatch.setenv("PATH", "")
    found = commit(checkout)
    assert isinstance(found, Unknown) and "git cannot be run" in found.why
    monkeypatch.undo()
    (checkout.parents[1] / ".git" / "HEAD").unlink()
    found = commit(checkout)
    assert isinstance(found, Unknown) and "not a git repository" in found.why


def test_a_package_inside_another_repository_has_no_commit_of_it(checkout, site):
    root = checkout.parents[1]
    within = root / "venv" / "lib" / "site-packages" / "r1_reward"
    within.mkdir(parents=True)
    assert commit(within) is None


def test_an_install_from_git_has_the_commit_that_pip_noted(site):
    noted = json.dumps({"url": "u", "vcs_info": {"vcs": "git", "commit_id": "0123456789abcdef"}})
    folder = site("r1-reward", "0.1.0", direct_url=noted)
    assert commit(folder / "r1_reward") == "0123456"
    assert commit(folder / "elsewhere" / "r1_reward") is None


@pytest.mark.parametrize("noted", ['{"url": "u", "dir_info": {"editable": true}}', None])
def test_a_release_has_no_commit(site, noted):
    folder = site("r1-reward", "0.1.0", **({} if noted is None else {"direct_url": noted}))
    assert commit(folder / "r1_reward") is None


def test_a_note_of_pip_that_cannot_be_read_is_unknown(site):
    found = commit(site("r1-reward", "0.1.0", direct_url="[]") / "r1_reward")
    assert isinstance(found, Unknown) and "direct_url.json" in found.why


def test_the_version_names_the_commit_where_there_is_one(monkeypatch):
    version = r1_reward.__version__
    shown = {"abc1234": " (abc1234)", None: "", Unknown("no git"): " (commit unknown: no git)"}
    for found, behind in shown.items():
        monkeypatch.setattr(installed, "commit", lambda found=found: found)
        assert version_text() == version + behind


def test_what_is_missing_or_of_another_version(site):
    site("aa", "1.5")
    site("bb", "2.0", 'dd-not-there>=1; extra == "more"', 'aa>=1; extra == "more"', "ee-not-there", extras=["more"])
    site(
        "r1-reward", "0.1.0", "aa<1.5", "cc-not-there>=3", 'aa>=9; python_version < "3"', 'aa>=1; python_version > "3"',
        'bb[more]>=1; extra == "big"', 'r1-reward[big]; extra == "all"', 'aa>=2; extra == "all"',
        extras=["big", "all"],
    )  # fmt: skip
    assert unmet() == (Unmet("aa", "aa<1.5", "1.5"), Unmet("cc-not-there", "cc-not-there>=3", None))
    assert extras() == ("all", "big")
    assert unmet("big") == (Unmet("dd-not-there", "dd-not-there>=1", None),)
    assert unmet("all") == (*unmet("big"), Unmet("aa", "aa>=2", "1.5"))
    assert str(unmet()[0]) == "aa<1.5 is needed, 1.5 is installed"
    assert str(unmet()[1]) == "cc-not-there>=3 is not installed"
    assert version_of("aa") == "1.5"
    assert version_of("cc-not-there") == Unknown("not installed")


def test_a_package_that_was_not_installed_says_so(monkeypatch):
    def none(name):
        raise installed.PackageNotFoundError(name)

    monkeypatch.setattr(installed, "distribution", none)
    with pytest.raises(UserError, match="pip install -e"):
        unmet()
    assert commit(installed._PACKAGE.parent) is None
