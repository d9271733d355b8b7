"""What the site makes out of the code while it is built, so that nobody copies it by hand.

Pages: the commands (from typer), the settings (from their fields, as ``--keys`` prints them), the recipes, and the
reference of the modules in `REFERENCE` (their docstrings, by mkdocstrings). Files outside docs/ that a page shows or
links to are taken along. Pages that no one listed in mkdocs.yml are put among the guides.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
PROJECT_PAGES = ("ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")
LINK = re.compile(r"(?<=\]\()([^)\s#]+)(#[^)\s]*)?(?=\))")

REFERENCE = {
    "method": (
        "The method",
        "Tensors, texts and rewards; no model. The page to read first: `r1_reward.algorithm`.",
        (
            "algorithm", "rewards", "records.parsing", "records.prompt", "records.dialect", "records.schema",
            "judge.referee", "judge.rule_referee", "judge.verdict_grammar", "judge.verdict_names",
            "judge.referee_models", "judge.referee_prompt",
        ),
    ),
    "judging": (
        "Judging",
        "From a checkpoint or a server to verdicts, rankings and probabilities.",
        (
            "judge.reward_model", "judge.settings", "judge.voting", "judge.ranking", "judge.calibration", "judge.votes",
            "judge.prepare", "judge.groups", "judge.schedules", "judge.comparisons",
            "engines.options", "engines.in_process", "engines.engine", "engines.server", "engines.client",
            "records.settings", "records.errors",
        ),
    ),
    "data": (
        "Data",
        "Pairs: read, checked, imported, mixed, explained by a teacher, divided.",
        (
            "store.pairs", "store.images", "data.sources", "data.sources.common", "data.importing", "data.mixing",
            "data.settings", "data.annotate", "data.difficulty", "data.handwriting",
        ),
    ),
    "training": (
        "Training",
        "Cold start, StableReinforce and its rivals, scalar baselines, and what watches over a run.",
        (
            "train.launch", "train.config", "train.rl_config", "train.rl", "train.algorithms", "train.sft",
            "train.scalar", "models.scalar", "models.checkpoint", "train.monitor", "train.held_out",
        ),
    ),
    "evaluation": (
        "Evaluation",
        "Benchmarks: load, judge, score, compare, attack; and grids of training runs.",
        (
            "bench.benchmark", "bench.benchmarks", "bench.fields", "bench.suites", "bench.rows", "bench.settings",
            "bench.run", "bench.score", "bench.metrics", "bench.summary", "judge.metrics", "bench.published",
            "bench.table", "bench.overview", "bench.probes",
            "studies.ablate.study", "studies.ablate.cells",
        ),
    ),
    "serving": (
        "Serving",
        "Rewards for other trainers, the HTTP server, and files of any length.",
        (
            "serve.dialects.trl", "serve.api", "serve.server", "serve.settings", "serve.schemas",
            "data.scoring.score_file",
        ),
    ),
}  # fmt: skip


# Pages.


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put what mkdocs.yml does not list into the navigation: new guides, and the project's own files."""
    assert config.nav is not None
    listed = set(re.findall(r"[\w/]+\.md", str(config.nav)))
    guides = next(section["Guides"] for section in config.nav if "Guides" in section)
    guides += sorted(page.name for page in (ROOT / "docs").glob("*.md") if page.name not in listed)
    project = [_uri_of(name) for name in PROJECT_PAGES if (ROOT / name).is_file()]
    if project:
        config.nav.append({"Project": project})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages, and every file outside docs/ that a page leads to."""
    for uri, content in _generated_pages().items():
        files.append(File.generated(config, uri, content=content))
    for name in PROJECT_PAGES:
        if (ROOT / name).is_file():
            files.append(File.generated(config, _uri_of(name), abs_src_path=str(ROOT / name)))
    sources = {page.src_uri: _repository_path(page.src_uri) for page in files.documentation_pages()}
    for source in filter(None, sources.values()):
        for target, _ in LINK.findall((ROOT / source).read_text(encoding="utf-8")):
            path = _target(source, target)
            if path and not path.endswith(".md") and _uri_of(path) == path and path not in files.src_uris:
                files.append(File.generated(config, path, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001
    """Turn links that are right in the repository into links that are right on the site."""
    source = _repository_path(page.file.src_uri)
    if source is None:
        return markdown

    def link(match: re.Match[str]) -> str:
        path = _target(source, match[1])
        uri = path and _uri_of(path)
        if not path or not uri:
            return match[0]
        here = posixpath.dirname(page.file.src_uri)
        return posixpath.relpath(uri.partition("#")[0], here or ".") + (match[2] or uri[len(uri.partition("#")[0]) :])

    return LINK.sub(link, markdown)


def _repository_path(src_uri: str) -> str | None:
    """Return where in the repository the source of a page is, None if it is generated."""
    for name in PROJECT_PAGES:
        if src_uri == _uri_of(name):
            return name
    return f"docs/{src_uri}" if (ROOT / "docs" / src_uri).is_file() else None


def _target(source: str, link: str) -> str | None:
    """Return the repository path that a link of a file leads to, None if it leads elsewhere."""
    path = posixpath.normpath(posixpath.join(posixpath.dirname(source), link))
    return path if ":" not in link and not path.startswith("..") and (ROOT / path).exists() else None


def _uri_of(path: str) -> str:
    """Return the place on the site of a path in the repository."""
    if path in PROJECT_PAGES:
        return f"project/{path.lower()}"
    if path == "README.md":
        return "index.md"
    if path.startswith("recipes/"):
        return f"reference/recipes.md#{_anchor(path)}"
    return path.removeprefix("docs/")


def _generated_pages() -> dict[str, str]:
    pages = {f"reference/{name}.md": _module_page(*entry) for name, entry in REFERENCE.items()}
    pages["reference/index.md"] = _index_page()
    pages["reference/cli.md"] = _commands_page()
    pages["reference/config.md"] = _settings_page()
    pages["reference/recipes.md"] = _recipes_page()
    return pages


def _module_page(title: str, introduction: str, modules: tuple[str, ...]) -> str:
    return "\n\n".join([f"# {title}", introduction, *(f"::: r1_reward.{module}" for module in modules)]) + "\n"


def _index_page() -> str:
    """The public names of the package, one line each, from the first sentence of their docstrings."""
    import r1_reward

    package = griffe.load("r1_reward", search_paths=[str(ROOT / "src")])
    lines = ["# Names", "", "`from r1_reward import …` loads what it needs when it is first used.", ""]
    lines += ["| name | |", "|---|---|"]
    for name, home in r1_reward._HOME.items():
        found = package[f"{home}.{name}"]
        found = found.final_target if found.is_alias else found
        sentence = " ".join(found.docstring.value.split("\n\n")[0].split()) if found.docstring else ""
        lines.append(f"| [`{name}`][{found.canonical_path}] | {_markdown(sentence, found)} |")
    lines += ["", "| everything else | |", "|---|---|"]
    for page, (title, introduction, _) in REFERENCE.items():
        lines.append(f"| [{title}]({page}.md) | {introduction} |")
    return "\n".join(lines) + "\n"


def _commands_page() -> str:
    """What `typer utils docs` prints for the r1-reward command."""
    import typer
    from typer.cli import get_docs_for_click

    from r1_reward import cli

    cli._register()
    command = typer.main.get_command(cli.app)
    text = get_docs_for_click(obj=command, ctx=typer.Context(command), name="r1-reward", title="Commands")
    keys = "[Settings](config.md) of `train` may stand in the file or on the command line.\n\n"
    return text.replace("**Usage**", keys + "**Usage**", 1)


def _settings_page() -> str:
    """What `--keys` prints, by who reads it: this project's own keys first, those of the trainers below."""
    from r1_reward.train.config import RunConfig, describe_keys
    from r1_reward.train.launch import config_class

    described = {stage: describe_keys(config_class(stage)) for stage in ("sft", "rl", "scalar")}
    every = set(RunConfig.model_fields)
    lines = [
        "# Settings",
        "",
        "Keys of the file that `r1-reward train STAGE --config FILE` reads; each may be given as `--key value`, too.",
        "An unknown key is an error that names the nearest right one. Empty defaults must be given.",
        "",
        "## Every stage",
        "",
        *_table([row for row in described["rl"] if row[0] in every]),
    ]
    for stage, rows in described.items():
        trainer = config_class(stage)
        own = set(trainer.__dict__["__annotations__"])
        inherited = trainer.__mro__[1].__name__
        lines += ["", f"## train {stage}", "", *_table([row for row in rows if row[0] in own]), ""]
        lines += [f"### From {inherited}, for {stage}", "", "Read by the library; its documentation holds.", ""]
        lines += _table([row for row in rows if row[0] not in own | every])
    return "\n".join(lines) + "\n"


def _table(rows: list[tuple[str, str, str]]) -> list[str]:
    cells = [(f"`{name}`", f"`{default}`" if default else "", _escaped(text)) for name, default, text in rows]
    return ["| key | default | meaning |", "|---|---|---|", *(f"| {' | '.join(row)} |" for row in cells)]


def _escaped(text: str) -> str:
    text = " ".join(text.split())
    return re.sub(r"([|<>*_\[\]`#])", r"\\\1", text)


def _recipes_page() -> str:
    lines = ["# Recipes", "", "Files of `recipes/`. Their first lines say how they are started.", ""]
    for file in sorted((ROOT / "recipes").rglob("*.yaml")):
        name = str(file.relative_to(ROOT))
        content = file.read_text(encoding="utf-8").rstrip()
        lines += [f"## {name} {{ #{_anchor(name)} }}", "", "```yaml", content, "```", ""]
    return "\n".join(lines)


def _anchor(path: str) -> str:
    return re.sub(r"\W+", "-", path.removesuffix(".yaml"))


# Docstrings: written for `help()` with the roles and literal blocks of reStructuredText, shown as Markdown.

_ROLE = re.compile(r":(?:func|class|meth|mod|data|attr|exc):`~?([\w.]+)`")
_LITERAL = re.compile(r"::(?=\n\s*\n +\S)")
_DOCTEST = re.compile(r"^( *)>>> .*(?:\n\1\S.*)*", re.MULTILINE)
_LISTING = re.compile(r"^((?!Args|Returns|Raises|Yields|Example)[A-Z][\w ]*:)\n(?= +\S)", re.MULTILINE)


def _markdown(text: str, obj: Any) -> str:
    def reference(match: re.Match[str]) -> str:
        name = match[1]
        label = name if len(name) < 30 else name.rpartition(".")[2]
        return f'<autoref optional identifier="{_full_name(name, obj)}"><code>{label}</code></autoref>'

    text = _LITERAL.sub(":", _ROLE.sub(reference, text))
    text = _LISTING.sub(r"\1\n\n", text)  # columns that are aligned by spaces stay aligned
    return _DOCTEST.sub(lambda block: f"{block[1]}```pycon\n{block[0]}\n{block[1]}```", text)


def _full_name(name: str, obj: Any) -> str:
    if name.startswith("r1_reward"):
        return name
    first, _, rest = name.partition(".")
    scope = obj
    while scope is not None:  # the innermost scope that knows the name, as Python would look it up
        found = scope.members.get(first)
        if found is not None:
            path = found.target_path if found.is_alias else found.canonical_path
            return f"{path}.{rest}" if rest else path
        scope = scope.parent
    return name


class Restructured(griffe.Extension):
    """Turn the roles and literal blocks of every docstring into Markdown."""

    def on_package(self, *, pkg: griffe.Module, **_: Any) -> None:
        """Rewrite the docstrings of a package once it is loaded as a whole."""
        seen: set[str] = set()

        def visit(obj: Any) -> None:
            if obj.is_alias or obj.path in seen:
                return
            seen.add(obj.path)
            if obj.docstring is not None:
                obj.docstring.value = _markdown(obj.docstring.value, obj)
            for member in obj.members.values():
                visit(member)

        visit(pkg)
