"""``r1-reward compare``, ``rank`` and ``calibrate``: what they print, and that hostile text stays text."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from shutil import copytree

import pytest
import typer
from PIL import Image
from scripted_server import reply, status
from typer.testing import CliRunner

from r1_reward.cli import compare as commands
from r1_reward.records.dialects import DEFAULT, find_dialect
from r1_reward.records.errors import UserError


@pytest.fixture(autouse=True)
def _wide(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def picture(tmp_path):
    Image.new("RGB", (28, 28), "red").save(tmp_path / "scene.png")
    return tmp_path / "scene.png"


def invoke(*arguments):
    app = typer.Typer()
    for name in ("compare", "rank", "calibrate"):
        app.command(name)(getattr(commands, name))
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def judged(answer, reasoning="Look."):
    return reply(f"<think>{reasoning}</think><answer>{answer}</answer>")


def prefers(text):
    """A step that prefers the response that contains ``text``, wherever it is shown."""

    def answer(body):
        prompt = body["messages"][-1]["content"]
        prompt = prompt if isinstance(prompt, str) else prompt[-1]["text"]
        first, _, _ = prompt.partition("[Response 2]")
        return judged(1 if text in first.partition("[Response 1]")[2] else 2)

    return answer


def ask(server, *more):
    return ("--model", "judge", "--base-url", server.url, "--question", "Which digit?", *more)


def test_compare_names_the_winner(server, picture):
    server.default = [prefers("three")]
    arguments = ask(server, "--a", "A three.", "--b", "An eight.", "--image", picture, "--votes", 2)
    result = invoke("compare", *arguments)
    assert result.exit_code == 0, result.output
    for text in (
        "Response 1 is better", "probability that response 1 is better: 0.900", "flip with the order: 0%",
        "4 for response 1, 0 for response 2, 0 unreadable", "generated tokens: 28", "Look.",
        "response 1 shown first as [Response 1]: prefers response 1",
        "response 2 shown first as [Response 1]: prefers response 1",
    ):  # fmt: skip
        assert text in result.output
    assert {part["type"] for part in server.bodies[0]["messages"][-1]["content"]} == {"image_url", "text"}
    report = json.loads(invoke("compare", *arguments, "--json").stdout)
    votes = report.pop("votes")
    assert report == {"preferred": 1, "probability": 0.9, "for_1": 4, "for_2": 0, "ties": 0, "unreadable": 0,
                      "flips": 0.0, "tokens": 28}  # fmt: skip
    assert [vote["answer"] for vote in votes] == [1] * 4


def test_reasoning_is_cut_in_the_judges_own_dialect(server):
    server.default = [reply("The other one miscounts.\nSo [[A]] it is.")]
    result = invoke("compare", *ask(server, "--a", "A three.", "--b", "An eight.", "--dialect", "llm-as-judge"))
    assert result.exit_code == 0, result.output
    assert "The other one miscounts." in result.output and "[[A]]" not in result.output
    server.default = [reply("The other one miscounts.")]
    result = invoke("compare", *ask(server, "--a", "A three.", "--b", "An eight.", "--dialect", "llm-as-judge"))
    assert "The other one miscounts." in result.output and "cannot be read" in result.output


def prompt_of(body):
    """Return what a server was shown as one text, [image] for a picture."""
    content = body["messages"][-1]["content"]
    return content if isinstance(content, str) else "".join(part.get("text", "[image]") for part in content)


def test_pictures_of_answers_stand_behind_their_text(server, picture, tmp_path):
    Image.new("RGB", (28, 28), "blue").save(tmp_path / "blue.png")
    server.default = [judged(1)]
    more = ("--image-1", picture, "--image-1", tmp_path / "blue.png", "--image-2", picture)
    for texts, first, second in (
        (("--a", "Red, blue: <image>", "--b", "Red:"), "Red, blue: < image>[image][image]", "Red:[image]"),
        (("--a", " ", "--b", ""), "[image][image]", "[image]"),
    ):
        server.bodies.clear()
        result = invoke("compare", *ask(server, *texts, *more))
        assert result.exit_code == 0, result.output
        shown = {prompt_of(body) for body in server.bodies}
        assert len(shown) == 2 and not any(one.startswith("[image]") for one in shown)
        for one, other in ((first, second), (second, first)):
            assert any(f"[Response 1]:\n{one}  \n" in text and f"[Response 2]:\n{other}  \n" in text for text in shown)
    alone = invoke("compare", *ask(server, "--a", "one", "--b", " ", "--image-1", picture))
    assert isinstance(alone.exception, UserError) and "response_2: is blank" in str(alone.exception)


def test_criteria_reach_the_judge(server, tmp_path):
    (tmp_path / "criteria.txt").write_text("Only the colours.\n")
    server.default = [prefers("one")]
    for criteria in ("Only the colours.", f"@{tmp_path / 'criteria.txt'}"):
        for command, answers in (("compare", ("--a", "one", "--b", "two")), ("rank", ("one", "two"))):
            server.bodies.clear()
            assert invoke(command, *ask(server, "--criteria", criteria, *answers)).exit_code == 0
            assert server.bodies and all(
                "Which digit?\n\nJudge the responses by this criterion alone: Only the colours.  \n" in prompt_of(body)
                for body in server.bodies
            )
    blank = invoke("compare", *ask(server, "--a", "one", "--b", "two", "--criteria", " "))
    assert isinstance(blank.exception, UserError) and "criteria: is blank" in str(blank.exception)


@pytest.mark.parametrize("option", ["--image", "--image-1", "--image-2"])
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gone.png", "gone.png: no such file"),
        ("notes.png", "is not an image"),
        (".", ""),
        ("https://example.org/a.png", "is a URL"),
        ("data:image/png;base64,AAAA", "is not an image"),
    ],
)
def test_wrong_pictures_are_told_before_the_model_is_loaded(tmp_path, monkeypatch, option, name, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("r1_reward.cli.compare.load_judge", lambda *_: pytest.fail("the model is loaded"))
    (tmp_path / "notes.png").write_text("no picture")
    result = invoke("compare", "--model", "m", "--question", "?", "--a", "one", "--b", "two", option, name)
    assert isinstance(result.exception, UserError) and message in str(result.exception)


@pytest.mark.parametrize(
    ("answers", "title", "counts"),
    [
        (
            (0, 0, 1),
            "A tie: neither response is better",
            "1 for response 1, 0 for response 2, 2 for a tie, 0 unreadable",
        ),
        ((0, 1), "Response 1 is better", "1 for response 1, 0 for response 2, 1 for a tie"),
        ((0, 1, 2), "No verdict: the votes are tied", "1 for response 1, 1 for response 2, 1 for a tie"),
        ((0,), "A tie", "0 for response 1, 0 for response 2, 1 for a tie"),
        ((1,), "Response 1 is better", "1 for response 1, 0 for response 2, 0 unreadable"),
    ],
)
def test_ties_are_told(answers, title, counts):
    from rich.console import Console

    from r1_reward.judge.voting import majority
    from r1_reward.records.schema import Judgment

    votes = [Judgment(answer=a, swapped=False, text="Both.", well_formed=True, tokens=3) for a in answers]
    console = Console(width=150)
    with console.capture() as shown:
        for panel in commands._verdict_panels(majority(votes), find_dialect(DEFAULT)):
            console.print(panel)
    assert title in shown.get() and counts in shown.get()
    assert shown.get().count("says tie") == answers.count(0)
    assert commands._verdict_json(majority(votes))["ties"] == answers.count(0)


def test_no_verdict_is_said_plainly(server):
    arguments = ask(server, "--a", "one", "--b", "two")
    tied = invoke("compare", *arguments)
    assert (tied.exit_code, "No verdict: the votes are tied" in tied.output) == (0, True)
    assert "flip with the order: 100%" in tied.output
    server.default = [reply("Who knows?", finish="length")]
    mute = invoke("compare", *arguments)
    assert (mute.exit_code, "No verdict: no vote can be read" in mute.output) == (0, True)
    assert "probability" not in mute.output
    assert "Who knows?" in mute.output
    assert "cut off at the token limit" in mute.output
    assert json.loads(invoke("compare", *arguments, "--json").stdout)["preferred"] is None


def test_options_reach_the_votes(server):
    server.default = [prefers("one")]
    options = ("--a", "one", "--b", "two", "--votes", 9, "--one-order", "--stop", "exact", "--temperature", 0.5,
               "--max-new-tokens", 12, "--seed", 3)  # fmt: skip
    report = json.loads(invoke("compare", *ask(server, *options), "--json").stdout)
    assert (report["for_1"], report["for_2"], report["flips"]) == (5, 0, None)
    assert {body["temperature"] for body in server.bodies} == {0.5}
    assert {body.get("max_completion_tokens", body.get("max_tokens")) for body in server.bodies} == {12}
    seeds = {body["seed"] for body in server.bodies}
    invoke("compare", *ask(server, *options[:-1], 4))
    assert len(seeds) == 5
    assert seeds.isdisjoint(body["seed"] for body in server.bodies[5:])


def test_strangers_text_is_neither_markup_nor_terminal_commands(server):
    hostile = "[bold red]x[/bold red] [/nonsense] \x1b[2J\x1b]0;owned\x07 \u202egnp :smile:"
    server.default = [judged(1, hostile)]
    for arguments in (
        ("compare", *ask(server, "--a", hostile, "--b", "two")),
        ("rank", *ask(server), hostile, "[/also] this"),
    ):
        result = invoke(*arguments)
        assert result.exit_code == 0, result.output
        assert "[bold red]x[/bold red] [/nonsense]" in result.output
        assert ":smile:" in result.output
        assert not set(result.output) & {"\x1b", "\x07", "\u202e"}


def test_texts_are_read_from_files(server, tmp_path):
    (tmp_path / "a.txt").write_text("From a file: drei\n", encoding="utf-8")
    server.default = [prefers("From a file: drei")]
    arguments = ask(server, "--a", "@@handle", "--b", f"@{tmp_path / 'a.txt'}", "--json")
    result = invoke("compare", *arguments)
    assert json.loads(result.stdout)["preferred"] == 2
    text = server.bodies[0]["messages"][-1]["content"]
    text = text if isinstance(text, str) else text[-1]["text"]
    assert ":\n@handle  \n" in text
    for bad, message in ((tmp_path / "gone.txt", "cannot be read"), (tmp_path, "cannot be read")):
        error = invoke("rank", *ask(server), f"@{bad}").exception
        assert isinstance(error, UserError)
        assert message in str(error)
    (tmp_path / "latin.txt").write_bytes(b"\xff\xfe\xff")
    assert "not UTF-8" in str(invoke("rank", *ask(server), f"@{tmp_path / 'latin.txt'}").exception)


def test_rank_shows_places_and_json_counts_from_0(server):
    server.default = [prefers("best")]
    result = invoke("rank", *ask(server), "so so", "the best", "so so")
    assert result.exit_code == 0, result.output
    rows = [[cell.strip() for cell in line.strip("│ ").split("│")] for line in result.output.splitlines()]
    assert [row[1] for row in rows if row[0] in ("1", "2", "3")] == ["2", "1", "3"]
    assert "comparisons: 1, without a readable vote: 0" in result.output
    report = json.loads(invoke("rank", *ask(server), "so so", "the best", "so so", "--json").stdout)
    assert report["order"] == [1, 0, 2]
    assert report["scores"][0] == report["scores"][2] < report["scores"][1]
    assert [sorted((one["first"], one["second"])) for one in report["comparisons"]] == [[0, 1]]
    many = [f"answer {i}" for i in range(30)]
    report = json.loads(invoke("rank", *ask(server), *many, "--budget", 4, "--json").stdout)
    assert len(report["comparisons"]) == 4


def test_rank_says_when_nothing_could_be_read(server):
    server.default = [reply("Who knows?")]
    result = invoke("rank", *ask(server), "one", "two")
    assert result.exit_code == 0
    assert "comparisons: 1, without a readable vote: 1; this order is meaningless" in result.output
    alone = invoke("rank", *ask(server), "one")
    assert "comparisons: 0" in alone.output
    assert "says nothing" not in alone.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("compare", "--a", " ", "--b", "x"), "response_1: is blank"),
        (("rank", "x", " "), r"responses[1]: is blank"),
        (("compare", "--a", "x", "--b", "y", "--image", "gone.png"), "gone.png: no such file"),
        (("compare", "--a", "x", "--b", "y", "--max-pixels", "9"), "the server sets this"),
        (("compare", "--a", "x", "--b", "y", "--votes", "2", "--temperature", "0"), "greedy votes"),
        (("compare", "--a", "x", "--b", "y", "--calibration", "."), "calibration.json not found"),
    ],
)
def test_mistakes_are_one_message(server, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    result = invoke(arguments[0], *ask(server, *arguments[1:]))
    assert isinstance(result.exception, UserError)
    assert message in str(result.exception)
    assert server.bodies == []


def test_a_server_that_refuses_is_no_verdict(server):
    server.default = [status(400, "no pictures here")]
    result = invoke("compare", *ask(server, "--a", "one", "--b", "two"))
    assert isinstance(result.exception, UserError)
    assert "no pictures here" in str(result.exception)


def test_a_checkpoint_compares_and_ranks(checkpoint, picture):
    shared = ("--model", checkpoint, "--image", picture, "--question", "Which digit?", "--max-new-tokens", 4)
    report = json.loads(invoke("compare", *shared, "--a", "three", "--b", "eight", "--json").stdout)
    assert len(report["votes"]) == report["for_1"] + report["for_2"] + report["unreadable"] == 2
    result = invoke("rank", *shared, "three", "eight", "one")
    assert result.exit_code == 0, result.output
    assert "comparisons: 3" in result.output


def with_probability(body):
    """Lean to what is shown first, more or less by what is shown."""
    text = body["messages"][-1]["content"]
    text = text if isinstance(text, str) else text[-1]["text"]
    lean = -0.1 - 0.05 * (len(text) % 7)
    digit = {"token": "1", "logprob": lean, "top_logprobs": [{"token": "1", "logprob": lean},
                                                            {"token": "2", "logprob": -2.0}]}  # fmt: skip
    tag, end = ({"token": token, "logprob": 0.0, "top_logprobs": []} for token in ("<answer>", "</answer>"))
    return reply("<answer>1</answer>", logprobs={"content": [tag, digit, end]})


def test_calibrate_saves_with_the_model_and_is_used(server, pair_file, tmp_path, picture, checkpoint):
    server.default = [with_probability]
    out, plot = tmp_path / "model", tmp_path / "plot.svg"
    arguments = ("--model", "judge", "--base-url", server.url, "--data", pair_file)
    result = invoke("calibrate", *arguments, "--out", out, "--plot", plot)
    assert result.exit_code == 0, result.output
    assert "64 of 64 pairs used" in result.output
    assert "<svg" in plot.read_text()
    report = json.loads(invoke("calibrate", *arguments, "--out", out, "--json").stdout)
    assert (report["pairs"], report["left_out"], report["folder"]) == (64, 0, str(out))
    saved = json.loads((out / "calibration.json").read_text())
    assert saved["temperature"] == report["temperature"] != 1
    assert f"temperature {saved['temperature']:.3f}" in result.output
    compared = ask(server, "--a", "A three.", "--b", "An eight, surely.", "--json")
    plain, calibrated = (
        json.loads(invoke("compare", *compared, *more).stdout)["probability"] for more in ((), ("--calibration", out))
    )
    from r1_reward.judge.calibration import Calibration

    assert calibrated == Calibration.load(out).apply(plain)


@pytest.mark.parametrize("ties", [1, 7])
def test_calibrate_leaves_ties_out_and_counts_them(server, pair_file, tmp_path, ties):
    server.default = [with_probability]
    rows = [json.loads(line) for line in pair_file.read_text().splitlines()]
    more = [
        rows[number] | {"id": f"tie {number}", "question": f"Tie {number}?", "preferred": 0} for number in range(ties)
    ]
    file = pair_file.with_name(f"with {ties} ties.jsonl")  # beside the pictures
    file.write_text("".join(json.dumps(row) + "\n" for row in [*more, *rows]))
    arguments = ("--model", "judge", "--base-url", server.url, "--data", file, "--out", tmp_path / "model")
    result = invoke("calibrate", *arguments)
    assert result.exit_code == 0, result.output
    assert f"64 of {64 + ties} pairs used" in result.output and f"and {ties} are ties" in result.output
    report = json.loads(invoke("calibrate", *arguments, "--json").stdout)
    assert (report["pairs"], report["ties"], report["left_out"]) == (64 + ties, ties, ties)
    assert not any("Tie " in json.dumps(body) for body in server.bodies)
    file.write_text("".join(json.dumps(row) + "\n" for row in more))
    nothing = invoke("calibrate", *arguments)
    assert isinstance(nothing.exception, UserError) and "every pair is a tie" in str(nothing.exception)


def test_calibrate_wants_a_folder_before_it_judges(server, pair_file):
    result = invoke("calibrate", "--model", "judge", "--base-url", server.url, "--data", pair_file)
    assert isinstance(result.exception, UserError)
    assert "--out" in str(result.exception)
    assert server.bodies == []


def test_calibrate_refuses_a_model_that_says_nothing_readable(checkpoint, pair_file, tmp_path):
    copytree(checkpoint, tmp_path / "model")
    result = invoke("calibrate", "--model", tmp_path / "model", "--data", pair_file, "--max-new-tokens", 1)
    assert isinstance(result.exception, UserError)
    assert "nothing to calibrate" in str(result.exception)
    assert not (tmp_path / "model" / "calibration.json").exists()


def test_importing_the_command_loads_nothing_heavy():
    code = "import sys, r1_reward.cli.compare; print(sorted({'torch', 'datasets', 'scipy', 'PIL'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ("https://example.org/scene.png", "https://example.org/scene.png: is a URL, and images are not downloaded"),
        ("http://localhost:9/a.png", "is a URL"),
        ("s3://bucket/a.png", "is a URL"),
        ("data:image/png,abc", "is an invalid data URI"),
        ("data:image/png;base64,AAAA", "is not an image"),
        ("nowhere.png", "nowhere.png: no such file"),
    ],
)
def test_what_is_no_picture_is_named_as_what_it_is(server, image, message):
    for command, answers in (("compare", ("--a", "one", "--b", "two")), ("rank", ("one", "two"))):
        result = invoke(command, *ask(server, "--image", image), *answers)
        assert isinstance(result.exception, UserError) and message in str(result.exception)
    assert server.bodies == []


def test_a_data_uri_is_a_picture(server, picture):
    uri = "data:image/png;base64," + base64.b64encode(picture.read_bytes()).decode()
    for image in (uri, picture.as_uri()):
        assert invoke("compare", *ask(server, "--image", image, "--a", "one", "--b", "two")).exit_code == 0
    sent = [[part["type"] for part in body["messages"][-1]["content"]] for body in server.bodies]
    assert sent == [["image_url", "text"]] * 4


@pytest.mark.parametrize("question", ["<image>Which?", "Is <|image_1|> it?", "<video> Which?"])
def test_a_question_about_a_picture_that_is_not_given_is_refused(server, picture, question):
    texts = ("--model", "judge", "--base-url", server.url, "--question", question, "--a", "one", "--b", "two")
    result = invoke("compare", *texts)
    assert isinstance(result.exception, UserError) and "but none was given" in str(result.exception)
    assert server.bodies == [] and invoke("compare", *texts, "--image", picture).exit_code == 0


def test_a_url_of_a_video_is_named(server):
    result = invoke("compare", *ask(server, "--video", "https://example.org/a.mp4", "--a", "one", "--b", "two"))
    assert isinstance(result.exception, UserError) and "URLs are not fetched" in str(result.exception)
