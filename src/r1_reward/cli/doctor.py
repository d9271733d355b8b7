"""``r1-reward doctor``: what is installed, what the machine has, what would be slow or fail here."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from r1_reward.cli.judging import AsJson

if TYPE_CHECKING:
    from r1_reward.engines.doctor import Report

BROKEN = 1
_FOR_THE_REPOSITORY = ("dev", "docs")  # extras that are of no use to a release


def doctor(
    base_url: Annotated[
        list[str] | None,
        typer.Option(help="Ask whether this OpenAI-compatible server answers (http://HOST/v1); may be repeated."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say what is installed, what the machine has, and what would be slow or fail; exit code 1 if a part is broken."""
    from r1_reward.engines.doctor import examine

    report = examine(base_url or ())
    typer.echo(json.dumps(report.as_json()) if as_json else "\n".join(_lines(report)))
    if report.broken:
        raise typer.Exit(BROKEN)


def _lines(report: Report) -> Iterator[str]:
    from r1_reward.records.errors import Unknown

    def known(value: Any) -> str:
        return f"unknown ({value.why})" if isinstance(value, Unknown) else str(value)

    commit = "" if report.commit is None else f", commit {known(report.commit)}"
    yield f"r1-reward {report.version}{commit}"
    yield f"  Python {report.python}, {report.platform}"
    for name, version in report.libraries.items():
        yield f"  {name} {version.why if isinstance(version, Unknown) else version}"
    yield "extras"
    for name, extra in report.extras.items():
        if name in _FOR_THE_REPOSITORY and report.commit is None:
            continue
        # One name each; a wrong version is shown in full.
        missing = dict.fromkeys(one.name if one.installed is None else str(one) for one in extra.missing)
        yield f"  {name}: " + (f"missing {', '.join(missing)}: {extra.install}" if missing else "installed")
    yield "machine"
    yield from (f"  {line}" for line in _machine(report))
    if report.servers:
        yield "servers"
    for server in report.servers:
        yield f"  {server.url}: " + (server.problem or f"answers; models: {', '.join(server.models or ()) or 'none'}")
    yield "findings" if report.findings else "no problems found"
    for finding in report.findings:
        yield f"  {finding.severity}: {finding.text}"
        yield f"      {finding.advice}"


def _machine(report: Report) -> Iterator[str]:
    from r1_reward.engines.doctor import GIB
    from r1_reward.records.errors import Unknown

    torch, memory, cache = report.torch, report.memory, report.cache
    threads = "" if isinstance(torch, Unknown) else f"; torch computes with {torch.threads}"
    yield f"cores: {report.cores}{threads}"
    yield f"memory: {memory.free / GIB:.1f} of {memory.total / GIB:.1f} GiB free"
    if isinstance(torch, Unknown):
        yield f"GPUs: unknown ({torch.why})"
    elif not torch.gpus:
        yield "GPUs: none that torch can use"
    else:
        for gpu in torch.gpus:
            kind = "bfloat16" if gpu.bf16 else "no bfloat16"
            yield f"GPU: {gpu.name}, {gpu.free / GIB:.1f} of {gpu.total / GIB:.1f} GiB free, {kind}"
    where = (
        f"unknown ({cache.why})" if isinstance(cache, Unknown) else f"{cache.folder}, {cache.free / GIB:.1f} GiB free"
    )
    yield f"cache of the Hub: {where}"
