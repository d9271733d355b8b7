"""The comparison table: its sections and marks; all formats show the same content, escaped."""

from __future__ import annotations

import io
import json
import re
from html.parser import HTMLParser

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from rich.cells import cell_len
from rich.console import Console

from r1_reward.bench.benchmarks import find_benchmark
from r1_reward.bench.overview import build_tables
from r1_reward.bench.table import build_table, load_run
from r1_reward.bench.table_formats import to_html, to_latex, to_markdown, to_terminal
from r1_reward.records.errors import UserError

HOSTILE = 'a|b <script>alert(1)</script> & $x_1$ \\ \\| \\textbf{%~^#} [bold]`c`[/bold] *d* "e" ![i](u) :smile:'
HEAD = ["model", "grouping", "orders", "unreadable", "votes", "n"]


def categories(**accuracy):
    return {name: {"accuracy": value, "n": 10, "acc_plus": None} for name, value in accuracy.items()}


def vl_run(**changes):
    official = categories(general=0.5, hallucination=0.8, reasoning=0.6)
    paper = categories(general=0.7, hallucination=0.9, reasoning=0.6)
    return {
        "suite": "vl-rewardbench",
        "name": "ours",
        "n": 1250,
        "expected": 1250,
        "complete": True,
        "rule": "wrong",
        "orders": "both",
        "votes": 3,
        "overall": 0.71924,
        "macro": 0.6333,
        "acc_plus": None,
        "categories": official,
        "groupings": {
            "official": {"categories": official, "macro": 0.6333},
            "paper": {"categories": paper, "macro": 0.7333},
        },
        "intervals": {"overall": [0.694, 0.744], "macro": [0.6, 0.66], "paper_macro": [0.7, 0.76], "acc_plus": None},
        "parse_rate": 1.0,
    } | changes


def other_run(suite, accuracy, **changes):
    return vl_run(suite=suite, categories=categories(**accuracy), groupings={}, **changes)


def cells(table, model, heading=None):
    """Return {heading: text} of one row, in its only section (or the one whose heading contains a word)."""
    found = [
        dict(zip([*HEAD, *table.columns, "mark"], [row.model, *row.protocol, *row.cells, row.mark], strict=True))
        for section in table.sections
        for row in section.rows
        if row.model == model and (heading is None or heading in section.heading)
    ]
    (row,) = found
    return row


def footnote(table, mark):
    return " ".join(table.footnotes[int(number) - 1] for number in re.findall(r"\d+", mark))


def test_vl_sections_hold_one_grouping_each():
    table = build_table([vl_run()])
    assert table.columns == ("general", "hallucination", "reasoning", "overall", "macro")
    groupings = [{row.protocol[0] for row in section.rows} for section in table.sections]
    assert groupings == [{"official"}, {"paper"}, {"not stated"}, {"none"}]
    assert "183/749/318" in table.sections[0].heading and "484/448/318" in table.sections[1].heading
    models = [[row.model for row in section.rows] for section in table.sections]
    assert models[0][:3] == ["IXC-2.5-Reward", "GPT-4o", "Gemini-1.5-Pro"] and models[0][-1] == "ours"
    assert models[1] == ["MM-RLHF-Reward", "R1-Reward", "R1-Reward, voting@15", "ours"]
    assert models[2][0] == "Claude-3.7-Sonnet" and "ours" not in models[2]


def test_a_run_is_in_each_grouping_with_that_groupings_numbers():
    table = build_table([vl_run()])
    official, paper = cells(table, "ours", "183/749/318"), cells(table, "ours", "484/448/318")
    assert [official[name] for name in HEAD[1:]] == ["official", "both", "wrong", "3", "1,250"]
    assert [official[name] for name in ("general", "hallucination", "reasoning")] == ["50.00", "80.00", "60.00"]
    assert [paper[name] for name in ("general", "hallucination", "reasoning")] == ["70.00", "90.00", "60.00"]
    assert official["overall"] == paper["overall"] == "71.92 [69.4, 74.4]"
    assert official["macro"] == "63.33 [60.0, 66.0]"
    assert paper["macro"] == "73.33 [70.0, 76.0]"
    assert official["mark"] == paper["mark"] == ""


def test_published_values_are_shown_as_printed():
    for suite in ("vl-rewardbench", "multimodal-rewardbench", "mm-rlhf-rewardbench"):
        table = build_table([other_run(suite, {})])
        shown = [
            (row.model, {k: v for k, v in zip(table.columns, row.cells, strict=True) if v != "–"})
            for section in table.sections for row in section.rows if row.published
        ]  # fmt: skip
        wanted = [(row.model, dict(row.values)) for row in find_benchmark(suite).published]
        assert sorted(shown, key=str) == sorted(wanted, key=str)
    assert [row.published for row in table.sections[0].rows] == [True] * 4 + [False]


def test_impossible_rows_carry_the_reason():
    table = build_table([vl_run()])
    voting = cells(table, "R1-Reward, voting@15")
    assert voting["mark"].startswith("impossible (")
    assert "73.70 is not k/318; 76.46 is not k/1250" in footnote(table, voting["mark"])
    assert voting["n"] == "–"
    gpt = cells(table, "GPT-4o")
    assert gpt["mark"].startswith("rows dropped (")
    assert "70.5 is not k/318" in footnote(table, gpt["mark"])
    assert cells(table, "R1-Reward", "484/448/318")["mark"] == ""
    assert cells(table, "R1-Reward", "484/448/318")["n"] == "1,250"


def test_partial_runs_are_marked():
    table = build_table([vl_run(n=1200, complete=False), vl_run(name="done")])
    partial = cells(table, "ours", "183/749/318")
    assert partial["n"] == "1,200 of 1,250"
    assert partial["mark"].startswith("partial (")
    assert "1,200 of 1,250 rows were judged" in footnote(table, partial["mark"])
    assert cells(table, "done", "183/749/318")["mark"] == ""
    short = build_table([vl_run(n=1200, complete=None)])
    assert cells(short, "ours", "183/749/318")["mark"].startswith("partial")
    cut = build_table([vl_run(complete=False, expected=None)])
    assert "only 1,250 rows" in footnote(cut, cells(cut, "ours", "183/749/318")["mark"])


def test_trials_and_other_rows_are_marked():
    trial = cells(build_table([vl_run(limit=20, n=20, expected=20, size=None)]), "ours", "183/749/318")
    text = footnote(build_table([vl_run(limit=20, n=20, expected=20, size=None)]), trial["mark"])
    assert "A trial on a part of the benchmark (`--limit 20`)." in text and "version" not in text
    own = {"suite": "mmrb2", "categories": {}, "groupings": {}, "n": 40, "expected": 40}
    for size, told in ((None, "Not on the official rows."), ("4,000 pairs", "")):
        table = build_table([vl_run(**own, size=size)])
        assert footnote(table, cells(table, "ours")["mark"]) == told


def test_rows_that_the_rule_drops_are_not_a_partial_run():
    row = cells(build_table([vl_run(n=1238, rows=1250, rule="drop")]), "ours", "183/749/318")
    assert (row["n"], row["mark"], row["unreadable"]) == ("1,238 of 1,250", "", "drop")


def test_caveats_of_a_run_are_footnotes():
    table = build_table([vl_run(parse_rate=0.9734, constant="always 1", n=1247, expected=1247)])
    mark = cells(table, "ours", "183/749/318")["mark"]
    assert not mark.startswith(("partial", "impossible"))
    text = footnote(table, mark)
    assert "97.34 % of the votes are readable" in text
    assert "always 1" in text
    assert "1,247 rows" in text and "1,250" in text


def test_truncation_is_a_footnote():
    (table,) = build_tables([vl_run(parse_rate=0.5, truncated=0.25)], published=False)
    assert {"50.00 % of the votes are readable.", "25.00 % of the votes were cut by the token limit."} <= set(
        table.footnotes
    )
    (old,) = build_tables([vl_run()], published=False)
    assert not [note for note in old.footnotes if "token limit" in note]


def test_missing_numbers_are_dashes():
    run = vl_run(overall=None, macro=None, categories={}, groupings=None, intervals=None, votes=None, orders=None)
    row = cells(build_table([run]), "ours")
    assert [row[name] for name in ("general", "hallucination", "reasoning", "overall", "macro", "votes")] == ["–"] * 6
    assert row["orders"] == "unknown"


def test_multimodal_categories_come_under_the_published_columns():
    accuracy = {
        "open_generation/correctness_task": 0.1,
        "open_generation/preference_task": 0.2,
        "knowledge": 0.3,
        "reasoning/math": 0.4,
        "reasoning/coding": 0.5,
        "safety/bias": 0.6,
        "safety/toxicity": 0.99,
        "vqa": 0.7,
    }
    table = build_table([other_run("multimodal-rewardbench", accuracy, n=4711, expected=4711)])
    row = cells(table, "ours")
    columns = ("correctness", "preference", "knowledge", "math", "coding", "safety", "vqa")
    assert [row[name] for name in columns] == [f"{tenth}0.00" for tenth in range(1, 8)]
    assert table.columns == ("overall", *columns)
    assert row["overall"] == "71.92 [69.4, 74.4]"
    assert cells(table, "R1-Reward", "Official")["math"] == "83.1"


def test_mm_rlhf_shows_acc_and_acc_plus():
    accuracy = {"mcq": 0.8, "long": 0.9, "short": 0.7, "safety": 0.6, "video": 0.5}
    intervals = {"overall": [0.7, 0.8], "acc_plus": [0.4, 0.6]}
    run = other_run("mm-rlhf-rewardbench", accuracy, n=170, expected=170, overall=0.75, acc_plus=0.5, macro=0.1)
    table = build_table([run | {"intervals": intervals}])
    row = cells(table, "ours")
    assert table.columns == ("mcq", "long", "short", "safety", "video", "acc", "acc+")
    assert (row["mcq"], row["video"]) == ("80.00", "50.00")
    assert (row["acc"], row["acc+"]) == ("75.00 [70.0, 80.0]", "50.00 [40.0, 60.0]")


def test_pairs_have_the_categories_that_were_found():
    first = other_run("pairs", {"b": 0.25, "overall": 0.5}, expected=None)
    second = other_run("pairs", {"a": 0.75}, name="second", expected=None)
    table = build_table([first, second])
    assert table.columns == ("a", "b", "overall", "overall")
    (section,) = table.sections
    assert [row.cells for row in section.rows] == [
        ("–", "25.00", "50.00", "71.92 [69.4, 74.4]"),
        ("75.00", "–", "–", "71.92 [69.4, 74.4]"),
    ]


def test_without_published_rows():
    table = build_table([vl_run()], published=False)
    assert {row.model for section in table.sections for row in section.rows} == {"ours"}
    assert not any("Published rows" in note for note in table.notes)


def test_notes_say_what_can_be_compared():
    table = build_table([vl_run()])
    notes = " ".join(table.notes)
    assert "reasoning and overall cover the same rows" in notes
    assert "preferred first" in notes and "scores 100 %" in notes
    assert "2505.02835" in notes
    alone = build_table([vl_run()], published=False)
    assert "scores 100 %" not in " ".join(alone.notes)
    ours = build_table([vl_run(orders="preferred-first")], published=False)
    assert "scores 100 %" in " ".join(ours.notes)
    assert cells(ours, "ours", "183/749/318")["orders"] == "preferred first"


def test_tables_are_grouped_by_suite():
    runs = [vl_run(), other_run("mm-rlhf-rewardbench", {}), vl_run(name="second")]
    tables = build_tables(runs)
    assert [table.suite for table in tables] == ["overview", "vl-rewardbench", "mm-rlhf-rewardbench"]
    assert cells(tables[1], "second", "183/749/318")
    assert [table.suite for table in build_tables(runs[:1] * 2)] == ["vl-rewardbench"]
    with pytest.raises(UserError, match=r"several suites \(vl-rewardbench, mm-rlhf-rewardbench\)"):
        build_table(runs)
    with pytest.raises(UserError, match="no run"):
        build_tables([])
    with pytest.raises(UserError, match="run 2: field rule is missing"):
        build_tables([vl_run(), {k: v for k, v in vl_run().items() if k != "rule"}])


# Formats


def markdown_tables(text):
    """Return the cells of every table in a Markdown text, as rendered."""
    tables, row = [], None
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        if token.type == "table_open":
            tables.append([])
        elif token.type == "tr_open":
            row = []
            tables[-1].append(row)
        elif token.type == "inline" and row is not None:
            kinds = {child.type for child in token.children}
            assert kinds <= {"text", "text_special"}, kinds  # no emphasis, code, link, image or HTML
            row.append("".join(child.content for child in token.children))
        elif token.type == "table_close":
            row = None
    return tables


class Reader(HTMLParser):
    """Collects tags, the cells of every table, and the rest of the text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.tables, self.cell = set(), [], None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        assert not any(name.startswith("on") or name in ("src", "href") for name, _ in attrs)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.cell = ""

    def handle_data(self, data):
        if self.cell is not None:
            self.cell += data

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self.tables[-1][-1].append(self.cell)
            self.cell = None


UNESCAPE = {
    r"\textbackslash{}": "\\",
    r"\textasciitilde{}": "~",
    r"\textasciicircum{}": "^",
    r"\textless{}": "<",
    r"\textgreater{}": ">",
    r"\textbar{}": "|",
    "{[}": "[",
    "{]}": "]",
    "{*}": "*",
    **{f"\\{c}": c for c in "&%$#_{}"},
    r"\textendash{}": "–",
    "-{}": "-",
}


def latex_tables(text):
    """Return the cells of every tabular, unescaped; anything active that is left would fail here."""
    tables = []
    for body in re.findall(r"\\begin\{tabular\}\{[lr]+\}\n(.*?)\\end\{tabular\}", text, re.DOTALL):
        rows = []
        for line in body.splitlines():
            if line in (r"\toprule", r"\midrule", r"\bottomrule"):
                continue
            assert line.endswith(r" \\") and not line.startswith(("[", "*"))
            texts = []
            for cell in re.split(r"(?<!\\) & ", line[:-3]):
                known = "|".join(map(re.escape, sorted(UNESCAPE, key=len, reverse=True)))
                assert not re.search(r"[\\{}$&#%_^~]", re.sub(known, "", cell)), cell
                texts.append(re.sub(known, lambda m: UNESCAPE[m.group()], cell))
            rows.append(texts)
        tables.append(rows)
    return tables


def expected_tables(tables):
    return [
        [[*HEAD, *table.columns, "see"], *([row.model, *row.protocol, *row.cells, row.mark] for row in section.rows)]
        for table in tables
        for section in table.sections
    ]


@pytest.fixture(scope="module")
def hostile():
    runs = [
        vl_run(name=HOSTILE, parse_rate=0.5),
        vl_run(name="[x](javascript:alert(1))"),
        vl_run(name="*starred"),
        other_run("pairs", {HOSTILE: 0.5, "n": 0.25}, name="two\nlines \x1b[31mred\x1b[0m \u202eback"),
    ]
    return build_tables(runs)


@pytest.mark.parametrize(
    ("render", "parse"),
    [(to_markdown, markdown_tables), (to_latex, latex_tables), (to_html, lambda text: Reader(text).tables)],
)
def test_formats_read_back_as_they_were(hostile, render, parse):
    assert parse(render(hostile)) == expected_tables(hostile)


def test_hostile_names_become_one_plain_line(hostile):
    (row,) = hostile[2].sections[0].rows
    assert row.model == "two lines [31mred [0m back"
    assert hostile[1].sections[0].rows[-3].model == HOSTILE


def test_html_is_self_contained_and_without_script(hostile):
    text = to_html(hostile)
    tags = Reader(text).tags
    assert not tags & {"script", "img", "a", "link", "iframe"}
    assert "<script" not in text
    assert text.count("<style>") == 1


def test_markdown_remarks_are_kept_and_inert(hostile):
    text = to_markdown(hostile)
    rendered = MarkdownIt("commonmark").enable("table").render(text)
    assert "<script" not in rendered and "<img" not in rendered and "<em>" not in rendered and "<a " not in rendered
    items = re.findall(r"<li>(.*?)</li>", rendered, re.DOTALL)
    assert len(items) == sum(len(table.footnotes) + len(table.notes) for table in hostile)
    assert any("(1) Grouping inferred" in item for item in items)


def terminal(tables, width):
    console = Console(file=io.StringIO(), width=width, color_system=None)
    to_terminal(tables, console)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [40, 80, 140, 400])
def test_terminal_never_cuts_a_number(width):
    text = terminal(build_tables([vl_run()]), width)
    assert text.count("71.92 [69.4, 74.4]") == 2
    for row in find_benchmark("vl-rewardbench").published:
        assert all(value in text for value in row.values.values())
    assert "…" not in text


def test_terminal_uses_the_width_it_has():
    tables = build_tables([vl_run()], published=False)
    for width in (140, 200):
        assert max(map(cell_len, terminal(tables, width).splitlines())) <= width


def test_terminal_takes_no_markup(hostile):
    text = terminal(hostile, 1000)
    assert HOSTILE in text
    assert "\x1b" not in text and "\u202e" not in text


@settings(max_examples=40, deadline=None)
@given(st.text(max_size=40) | st.text("&%$#_{}~^\\|<>[]*`!-\n \x1b–", max_size=12))
@example("a--b---[c")
def test_any_name_survives_every_format(name):
    tables = build_tables([other_run("pairs", {"a": 0.5}, name=name)])
    expected = expected_tables(tables)
    assert Reader(to_html(tables)).tables == expected
    assert latex_tables(to_latex(tables)) == expected
    assert markdown_tables(to_markdown(tables)) == expected
    terminal(tables, 80)


# Files


def test_load_run_reads_folders_and_files(tmp_path):
    folder = tmp_path / "my run"
    folder.mkdir()
    (folder / "metrics.json").write_text(json.dumps(vl_run(name="", baselines={"random": {"overall": 0.5}})))
    run = load_run(folder)
    assert run["name"] == "my run"
    assert run["overall"] == 0.71924
    file = tmp_path / "scored.json"
    file.write_text(json.dumps({k: v for k, v in vl_run().items() if k != "name"}))
    assert load_run(file)["name"] == "scored"
    assert cells(build_table([run]), "my run", "183/749/318")["overall"] == "71.92 [69.4, 74.4]"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not JSON"),
        (b'{"suite": "vl-', "is not JSON"),
        (b"\xff\xfe{}", "is not JSON"),
        (b"[1, 2]", "must be one JSON object"),
        (b"{}", "field suite is missing"),
        ({"suite": "mmlu"}, "unknown suite 'mmlu'; the suites are .*vl-rewardbench"),
        ({"rule": "half"}, r"field rule: .*, not 'half'"),
        ({"overall": 71.92}, r"field overall: .*less than or equal to 1, not 71.92"),
        ({"overall": "0.7"}, "field overall: "),
        ({"overall": float("nan")}, "field overall: "),
        ({"n": True}, "field n: "),
        ({"n": -1}, "field n: "),
        ({"categories": {"general": {"n": 3}}}, "field categories.general.accuracy is missing"),
        ({"categories": {"general": 0.5}}, "field categories.general: "),
        ({"groupings": {"paper": {"macro": 0.5}}}, "field groupings.paper.categories is missing"),
        ({"intervals": {"overall": [0.1]}}, "field intervals.overall: "),
    ],
)
def test_files_that_are_not_runs_are_refused(tmp_path, content, message):
    file = tmp_path / "metrics.json"
    file.write_bytes(content if isinstance(content, bytes) else json.dumps(vl_run(**content)).encode())
    with pytest.raises(UserError, match=message) as caught:
        load_run(tmp_path)
    assert str(caught.value).startswith(f"{file}: ")


def test_missing_files_are_named(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        load_run(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"has no metrics\.json"):
        load_run(tmp_path)
