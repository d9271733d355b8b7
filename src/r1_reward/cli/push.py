"""``r1-reward push``: publish a trained model on the Hugging Face Hub."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from r1_reward.cli.options import with_settings
from r1_reward.records.errors import UserError

if TYPE_CHECKING:
    from r1_reward.publish.push import Package


@with_settings
def push(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of the trained model.")],
    hub_id: Annotated[str, typer.Argument(metavar="HUB_ID", help="Repository on the Hub, OWNER/NAME.")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Write the repository into --out and upload nothing; needs no network.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Folder of a dry run; default: DIR-hub.")] = None,
    bench: Annotated[
        list[Path] | None,
        typer.Option(help="Folder of `r1-reward bench run`, may be repeated; those in DIR are found."),
    ] = None,
    data_card: Annotated[
        Path | None, typer.Option(help="Folder of `r1-reward data mix`; default: the folder of the run's data.")
    ] = None,
    base_model: Annotated[
        str | None, typer.Option(help="Hub id of the model that was trained, if the folder does not record it.")
    ] = None,
    license: Annotated[
        str | None,
        typer.Option(help="License of the weights, by its identifier on the Hub; a terminal prompts for it."),
    ] = None,
    license_name: Annotated[str | None, typer.Option(help="Name of a license that is `other`.")] = None,
    license_link: Annotated[str | None, typer.Option(help="Link to the text of a license that is `other`.")] = None,
    judged_as: Annotated[
        list[str] | None, typer.Option(help="Another name under which --bench judged these weights; may be repeated.")
    ] = None,
    revision: Annotated[str, typer.Option(help="Branch of the repository, created if missing.")] = "main",
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
) -> None:
    """Publish a trained model: weights, processor, calibration, recipe, and a card with the measured results."""
    from r1_reward.publish.push import prepare, write
    from r1_reward.publish.upload import upload

    if out is not None and not dry_run:
        raise UserError("--out: only valid with --dry-run; an upload writes no folder.")
    if license is None and at_terminal():
        license, license_name, license_link = ask_license(folder, base_model, license_name, license_link)
    package = prepare(
        folder, hub_id, revision=revision, bench=bench or (), data_card=data_card, base_model=base_model,
        license=license, license_name=license_name, license_link=license_link, judged_as=judged_as or (),
    )  # fmt: skip
    if dry_run:
        place = out or folder.resolve().with_name(folder.resolve().name + "-hub")
        write(package, place)
        _show(package)
        kind = "a private" if private else "a public"
        for what, name in package.named:
            typer.secho(f"note: an upload first looks up {what} {name}", fg=typer.colors.YELLOW, err=True)
        typer.echo(f"dry run: written to {place}; would become branch {revision} of {hub_id}, {kind} repository if new")
        return
    _show(package)
    typer.echo(f"published {upload(package, private=private)}")


def at_terminal() -> bool:
    """Return whether prompts are possible: they read standard input and write to standard error."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def ask_license(
    folder: Path, base_model: str | None, name: str | None, link: str | None
) -> tuple[str, str | None, str | None]:
    """Prompt for the identifier, name and link of a license, and return them."""
    from r1_reward.publish.facts import find_origin
    from r1_reward.publish.license import OTHER, where_to_look

    base = find_origin(folder, base=base_model).base if folder.is_dir() else base_model
    typer.echo(where_to_look(base), err=True)
    given: str = typer.prompt(f"License of the weights (such as apache-2.0, or {OTHER})", err=True)
    if given.strip() == OTHER:
        name = name or typer.prompt("Its name", err=True)
        link = link or typer.prompt("Link to its text (https://...)", err=True)
    return given, name, link


def _show(package: Package) -> None:
    sizes = package.sizes()
    for name, size in sizes.items():
        typer.echo(f"{size:>15,}  {name}")
    typer.echo(f"{sum(sizes.values()):>15,}  bytes in {len(sizes)} files")
    if package.left_out:
        typer.echo(f"not uploaded: {', '.join(package.left_out)}")
    for note in package.notes:
        typer.secho(f"note: {note}", fg=typer.colors.YELLOW, err=True)
