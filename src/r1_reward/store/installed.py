"""What is installed: this package with its commit, whether its requirements are met, and which extras are complete.

Everything is read from git and from the metadata of the installed distributions; nothing is imported::

    version_text()                    # "0.2.0 (22e4c1e+changes)"
    unmet()                           # requirements that are missing or have another version; () if all is well
    {name: unmet(name) for name in extras()}
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement

import r1_reward
from r1_reward.records.errors import Unknown, UserError

NAME = "r1-reward"
_PACKAGE = Path(r1_reward.__file__).parent
_HASH = 7  # characters of a commit that are shown


@dataclass(frozen=True)
class Unmet:
    """A requirement that is not met: its package, and the version that is installed instead, None if there is none."""

    name: str
    requirement: str
    installed: str | None

    def __str__(self) -> str:
        found = "is not installed" if self.installed is None else f"is needed, {self.installed} is installed"
        return f"{self.requirement} {found}"


def version_text() -> str:
    """Return the version, followed by the commit in brackets if there is one."""
    found = commit()
    if found is None:
        return r1_reward.__version__
    shown = f"commit unknown: {found.why}" if isinstance(found, Unknown) else found
    return f"{r1_reward.__version__} ({shown})"


def commit(package: Path = _PACKAGE) -> str | Unknown | None:
    """Return the short hash of the commit that runs, with ``+changes`` behind it if tracked files differ.

    It is that of the checkout the package lies in, else the one that pip noted when it installed from git. None if
    there is neither, as in a release.
    """
    root = package.parents[1]
    if package == root / "src" / package.name and (root / ".git").exists():
        return _head(root)
    try:
        installed = distribution(NAME)
    except PackageNotFoundError:
        return None
    noted = installed.read_text("direct_url.json")
    if noted is None or Path(str(installed.locate_file(package.name))) != package:
        return None
    try:
        found = json.loads(noted).get("vcs_info", {}).get("commit_id")
    except (ValueError, AttributeError) as error:
        return Unknown(f"pip's direct_url.json cannot be read ({error})")
    return None if found is None else str(found)[:_HASH]


def _head(root: Path) -> str | Unknown:
    command = ["git", "-C", str(root), "describe", "--always", "--exclude=*", f"--abbrev={_HASH}", "--dirty=+changes"]
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}  # reading the state must not disturb another git
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, env=environment)
    except (OSError, subprocess.TimeoutExpired) as error:
        return Unknown(f"git cannot be run ({error})")
    if done.returncode:
        return Unknown((done.stderr.strip().splitlines() or ["git failed"])[0])
    return done.stdout.strip()


def version_of(name: str) -> str | Unknown:
    """Return the version of an installed distribution."""
    try:
        return distribution(name).version
    except PackageNotFoundError:
        return Unknown("not installed")


def extras() -> tuple[str, ...]:
    """Return the names of the extras, in alphabetical order.

    Raises:
        UserError: as :func:`unmet`.
    """
    return tuple(sorted(_ours().metadata.get_all("Provides-Extra") or ()))


def unmet(extra: str = "") -> tuple[Unmet, ...]:
    """Return what is missing of the package's own requirements, or of those that an extra adds.

    Extras of requirements (``trl[vllm]``) are followed; what requirements require beyond that is left to pip.

    Raises:
        UserError: the package was not installed by pip, so that no requirements are noted.
    """
    return tuple(dict.fromkeys(_unmet(_ours(), extra)))


def install_command(extra: str) -> str:
    """Return the command that installs an extra."""
    return f"pip install '{NAME}[{extra}]'"


def _ours() -> Distribution:
    try:
        return distribution(NAME)
    except PackageNotFoundError as error:
        raise UserError(f"{NAME} is not installed, only found on the path: pip install -e . in its folder.") from error


def _unmet(of: Distribution, extra: str) -> Iterator[Unmet]:
    for text in of.requires or ():
        requirement = Requirement(text)
        if requirement.marker is None:
            wanted = not extra
        else:  # a marker on the platform alone is true with and without the extra
            plain = requirement.marker.evaluate({"extra": ""})
            wanted = requirement.marker.evaluate({"extra": extra}) and (not extra or not plain)
        if wanted:
            yield from _one_unmet(requirement)


def _one_unmet(requirement: Requirement) -> Iterator[Unmet]:
    shown = f"{requirement.name}{requirement.specifier}"
    try:
        found = distribution(requirement.name)
    except PackageNotFoundError:
        yield Unmet(requirement.name, shown, None)
        return
    if not requirement.specifier.contains(found.version, prereleases=True):
        yield Unmet(requirement.name, shown, found.version)
    for extra in sorted(requirement.extras):
        yield from _unmet(found, extra)
