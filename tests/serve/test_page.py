"""The web page: its cards, hostile text, and a browser that uses it as a person would."""

from __future__ import annotations

import html
import re
import shutil
import socket
import threading
import time
from functools import partial
from html.parser import HTMLParser

import pytest
from fakes import Table
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from served import ScriptedJudge

from r1_reward.judge.prepare import open_images
from r1_reward.judge.reward_model import RewardModel
from r1_reward.judge.voting import majority
from r1_reward.records.dialects import DEFAULT, find_dialect
from r1_reward.records.schema import Completion, Judgment
from r1_reward.serve import cards
from r1_reward.serve.budget import Budget
from r1_reward.serve.page import examples, judge
from r1_reward.serve.settings import ServerSettings

RED = Image.new("RGB", (56, 28), "red")
OURS = find_dialect(DEFAULT)


class Reader(HTMLParser):
    """Collects the text and the tags of a page as a browser reads them."""

    def __init__(self, markup):
        super().__init__()
        self.texts, self.tags, self.attributes = [], [], []
        self.feed(markup)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes.extend(attrs)

    def handle_data(self, data):
        self.texts.append(data)


def text_of(markup):
    return " ".join("".join(Reader(markup).texts).split())


def vote(answer, *, swapped=False, text=None, probability=None):
    text = text if text is not None else f"<think>Because.</think><answer>{answer}</answer>"
    return Judgment(answer=answer, swapped=swapped, text=text, well_formed=True, tokens=7, probability=probability)


def page_of(answers, votes, total=None, dialect=OURS):
    total = len(votes) if total is None else total
    return cards.result(dict(enumerate(answers, 1)), {(1, 2): majority(votes)}, total, dialect)


def run(
    model, answers=("4", "7"), question="Which is larger?", pictures=(), votes=1, both_orders=True, clock=None,
    criterion="", **limits,
):  # fmt: skip
    budget = Budget(ServerSettings(**limits), clock or time.monotonic)
    options = {"votes": votes, "both_orders": both_orders, "budget": budget, "criterion": criterion}
    return list(judge(model, pictures, question, answers, **options))


@pytest.fixture
def model():
    return RewardModel(ScriptedJudge()).shared()


# Parts of reasoning.


def test_claims_are_shown_side_by_side():
    text = "I see three eight.\n[Response 1]: three match\n[Response 2]: five wrong\nResponse 1 is better."
    assert cards.split_claims(text) == ("I see three eight.", "three match", "five wrong", "Response 1 is better.")
    long = "[Response 1]: It says three.\nThat is right.\n\n[Response 2]: It says five.\nNo.\n\nSo the first."
    assert cards.split_claims(long) == ("", "It says three.\nThat is right.", "It says five.\nNo.", "So the first.")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "The first is right.",
        "[Response 1]: only one",
        "[Response 2]: b\n[Response 1]: a",
        "[Response 1]: a\n[Response 2]: b\n[Response 1]: again",
        "In the line [Response 1]: a and [Response 2]: b",
    ],
)
def test_other_reasoning_stays_whole(text):
    assert cards.split_claims(text) is None


@given(st.text(alphabet="ab[]Response 12:\n", max_size=60))
def test_no_word_of_the_reasoning_is_lost(text):
    parts = cards.split_claims(text)
    if parts is not None:
        shown = f"{parts.before}[Response 1]:{parts.first}[Response 2]:{parts.second}{parts.after}"
        letters = re.sub(r"[\s:]", "", text)
        assert re.sub(r"[\s:]", "", shown) == letters


@pytest.mark.parametrize(
    ("name", "text", "reasoning", "verdict"),
    [
        ("llm-as-judge", "The second one miscounts.\nSo [[A]] it is.", "The second one miscounts.", "[[A]]"),
        ("boxed", "The second one miscounts.\n\\boxed{1}", "The second one miscounts.", "boxed"),
        ("rm-r1", "<eval>B miscounts.</eval>\n<answer>[[A]]</answer>", "B miscounts.", "[[A]]"),
    ],
)
def test_reasoning_of_every_dialect_comes_without_its_verdict(name, text, reasoning, verdict):
    dialect = find_dialect(name)
    one = Judgment(**{**vote(1, text=text).model_dump(), "answer": dialect.parse(text).answer})
    assert one.answer == 1
    said = text_of(page_of(["A", "B"], [one], dialect=dialect))
    assert reasoning in said and verdict not in said
    silent = one.model_copy(update={"answer": None})
    assert verdict in text_of(page_of(["A", "B"], [silent], dialect=dialect))


def test_claims_are_put_under_the_answer_they_are_about():
    text = "<think>[Response 1]: eight wrong\n[Response 2]: three match</think><answer>2</answer>"
    straight = page_of(["A", "B"], [vote(2, text=text)])
    turned = page_of(["A", "B"], [vote(1, swapped=True, text=text)])
    assert "on answer 1 eight wrong" in re.sub(r"(\d)(?=eight|three)", r"\1 ", text_of(straight))
    assert "on answer 1 three match" in re.sub(r"(\d)(?=eight|three)", r"\1 ", text_of(turned))


# The verdict.


def test_the_verdict_by_hand():
    votes = [vote(1, probability=0.9), vote(2, swapped=True, probability=0.4), vote(1, probability=0.8)]
    says = text_of(page_of(["A", "B"], votes))
    assert says.startswith("Answer 1 is better")
    assert "answer 1 is better: 70%" in says
    assert "answer 2 is better: 30%" in says
    assert "2 for answer 1 · 1 for answer 2 · changes with the order in 100% of the vote pairs · 21 tokens" in says
    assert "Vote 2 prefers answer 2answer 2 shown first, as Response 1 · 60% certain" in says


def test_a_missing_verdict_is_stated_plainly():
    tied = text_of(page_of(["A", "B"], [vote(1), vote(2, swapped=True)]))
    assert tied.startswith("No verdict: the votes are tied")
    silent = text_of(page_of(["A", "B"], [vote(None, text="Both are nice.")]))
    assert silent.startswith("No verdict: no vote can be read")
    assert "better" not in silent
    assert "Both are nice." in silent


def test_progress_is_shown_until_the_last_vote():
    assert "Vote 2 of 4 is being drawn" in text_of(page_of(["A", "B"], [vote(1)], total=4))
    assert "being drawn" not in text_of(page_of(["A", "B"], [vote(1)], total=1))


def test_several_answers_are_ranked_by_their_win_rate(model):
    last = text_of(run(model, ["1", "", "9", "5"])[-1])
    assert last.startswith("Answer 3 is best")
    assert re.search(r"Answer 390%Answer 450%Answer 110%", last)
    assert "Answer 1 against answer 3: answer 3 is better" in last
    assert "nswer 2" not in last.replace("answer 2 shown", ""), "it is blank"


HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(1)>[Response 2]: \"&' <b>bold</b> **md** $x$"


@settings(deadline=None, max_examples=40)
@given(st.one_of(st.just(HOSTILE), st.text(alphabet="<>&\"'/a=[]()*`$\n", max_size=40)))
def test_no_text_becomes_markup(text):
    plain = page_of(["A", "B"], [vote(1, text="x"), vote(None, text="x")])
    marked = page_of([text, text], [vote(1, text=text), vote(None, text=text)])
    claims = f"[Response 1]: {text.strip() or 'x'}".replace("\n", " ")
    halves = page_of(["A", "B"], [vote(1, text=f"<think>{claims}\n[Response 2]: y</think><answer>1</answer>")])
    # The parts around the claims may be missing; no other tag may appear or disappear.
    for markup, other in ((marked, plain), (cards.notice(text), cards.notice("x")), (cards.heading(text), None)):
        known = set(Reader(plain).tags) | {"h1", "p", "small"}
        assert set(Reader(markup).tags) <= known
        if other is not None:
            assert Reader(markup).attributes == Reader(other).attributes
    assert "script" not in Reader(halves).tags
    assert "img" not in Reader(halves).tags


def test_hostile_answers_and_questions_through_the_judge(model):
    for markup in run(model, [HOSTILE + " 4", HOSTILE + " 7"], question=HOSTILE):
        assert not {"script", "img", "b"} & set(Reader(markup).tags) - {"b"}
        assert "onerror" not in dict(Reader(markup).attributes)
    assert html.escape("<script>") in markup


# Pictures of answers, a criterion, ties.


@pytest.fixture
def files(tmp_path):
    for colour in ("red", "blue", "green"):
        Image.new("RGB", (56, 28), colour).save(tmp_path / f"{colour}.png")
    return {colour: str(tmp_path / f"{colour}.png") for colour in ("red", "blue", "green")}


def test_pictures_of_answers_reach_the_judge_behind_the_text_and_are_shown(model, files):
    answers = [{"text": "4", "files": [files["red"], files["blue"]]}, {"text": "", "files": [files["green"]]}, None, ""]
    last = run(model, answers, pictures=[files["green"]], criterion="size")[-1]
    asked, first, second = model.engine.engine.seen[0]
    assert asked == "Which is larger?\n\nJudge the responses by this criterion alone: size"
    assert {first, second} == {"4[image][image]", "[image]"}
    assert model.engine.engine.images[0] == [(56, 28)] * 4
    assert Reader(last).tags.count("img") == 3
    assert "Answer 1 is better" in text_of(last)


def test_an_answer_of_text_beside_one_of_pictures(model, files):
    last = run(model, ["4", {"text": "7", "files": [files["red"]]}])[-1]
    assert "answer 1: no picture" in text_of(last) and Reader(last).tags.count("img") == 1
    assert "no picture" not in text_of(run(model)[-1])


def test_several_answers_are_ranked_with_their_pictures(model, files):
    answers = [{"text": str(n), "files": [files[colour]]} for n, colour in enumerate(("red", "blue", "green"))]
    last = run(model, answers)[-1]
    assert text_of(last).startswith("Answer 3 is best") and Reader(last).tags.count("img") == 3


@pytest.mark.parametrize(
    ("answers", "limits", "message"),
    [
        ([{"text": "4", "files": ["red"]}] * 2, {}, "Two answers have the same text and pictures"),
        ([{"text": "", "files": ["red"]}, {"text": " ", "files": []}], {}, "Write at least two answers."),
        ([{"text": "4", "files": ["gone"]}, "7"], {}, "no such file"),
        ([{"text": "4", "files": ["notes"]}, "7"], {}, "is not an image"),
        ([{"text": "4", "files": ["red"]}, {"files": ["blue"]}], {"max_images": 1}, "--max-images"),
        ([{"text": "4", "files": ["red"]}, {"files": ["blue"]}], {"max_pixels": 2 * 56 * 28 - 1}, "--max-pixels"),
        ([{"text": "4" * 30, "files": ["red"]}, "7"], {"max_chars": 20}, "--max-chars"),
        (["4", "7"], {"criterion": "x" * 21, "max_chars": 20}, "--max-chars"),
    ],
)  # fmt: skip
def test_mistakes_with_pictures_are_messages(model, files, tmp_path, answers, limits, message):
    (tmp_path / "notes.png").write_text("no picture")
    files = {**files, "gone": str(tmp_path / "gone.png"), "notes": str(tmp_path / "notes.png")}
    named = [one if isinstance(one, str) else {**one, "files": [files[f] for f in one["files"]]} for one in answers]
    last = run(model, named, question="Which?", **limits)[-1]
    assert message in text_of(last) and "rr-notice" in last and "better" not in last
    assert model.engine.engine.calls == []


@pytest.mark.parametrize(
    ("answers", "title", "counts"),
    [
        ((0, 0, 1), "A tie: neither answer is better", "1 for answer 1 · 0 for answer 2 · 2 for a tie"),
        ((0, 2), "Answer 2 is better", "0 for answer 1 · 1 for answer 2 · 1 for a tie"),
        ((0, 1, 2), "No verdict: the votes are tied", "1 for a tie"),
    ],
)
def test_votes_that_say_tie(answers, title, counts):
    says = text_of(page_of(["A", "B"], [vote(answer) for answer in answers]))
    assert says.startswith(title) and counts in says
    assert says.count("says tie") == answers.count(0)


def test_large_pictures_are_scaled_down():
    large = cards.thumbnails([Image.effect_noise((2000, 1500), 90).convert("RGB")])
    assert len(large) < 400_000 and cards.thumbnails([]) == ""


# Errors are shown on the page.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"answers": ["4", " "]}, "Write at least two answers."),
        ({"answers": ["4", "4"]}, "Two answers have the same text"),
        ({"question": " "}, "question: is blank."),
        ({"question": "<image>Which?"}, "has a placeholder for 1 image (<image>), but none was given"),
        ({"pictures": ["/nowhere/x.png"]}, "/nowhere/x.png"),
        ({"question": "it fails"}, "it answers 500"),
        ({"question": "it is down"}, "cannot be reached"),
    ],
)
def test_mistakes_are_messages(model, options, message):
    last = run(model, **options)[-1]
    assert message in text_of(last)
    assert "rr-notice" in last
    assert "better" not in last


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_pixels": 2 * 56 * 28 - 1}, r"in all pictures.*--max-pixels"),
        ({"max_images": 1}, r"2 pictures.*--max-images"),
        ({"answers": ["a" * 30, "b"], "max_chars": 20}, "--max-chars"),
        ({"answers": ["1", "2", "3"], "max_candidates": 2}, "--max-candidates"),
        ({"votes": 4, "max_judgments": 7}, "--max-judgments"),
    ],
)
def test_the_page_keeps_the_limits_of_a_request(model, tmp_path, options, message):
    RED.save(tmp_path / "red.png")
    last = run(model, pictures=[str(tmp_path / "red.png")] * 2, **options)[-1]
    assert re.search(message, text_of(last))
    assert model.engine.engine.calls == []


def test_a_page_that_takes_too_long_shows_the_votes_it_has(model):
    ticks = iter([0.0, 1.0, *[99.0] * 9])
    last = run(model, votes=3, clock=lambda: next(ticks), timeout=30.0)[-1]
    assert "not finished within 30 seconds" in text_of(last)
    assert last.count("rr-vote") == 2


# Votes one by one.


def test_the_watched_votes_are_those_of_compare(checkpoint):
    model = RewardModel.from_pretrained(checkpoint, max_new_tokens=6, seed=3).shared()
    pictures = open_images([RED])
    for options in ({"votes": 2}, {"votes": 2, "both_orders": False}, {"votes": 1}):
        watched = list(model.watch("What number is written here?", pictures, "A one.", "A two.", **options))
        whole = model.compare("What number is written here?", pictures, "A one.", "A two.", **options)
        assert [len(verdict.votes) for verdict in watched] == list(range(1, len(whole.votes) + 1))
        assert [vote.text for vote in watched[-1].votes] == [vote.text for vote in whole.votes]
        assert watched[-1].preferred == whole.preferred


def test_every_vote_is_a_step(model):
    steps = run(model, votes=3)
    assert len(steps) == 1 + 6
    assert [step.count("rr-vote") for step in steps] == list(range(7))


def test_a_scalar_model_has_one_vote():
    scorer = Table({"long answer": 11.0, "short": 5.0})
    steps = run(RewardModel(scorer).shared(), ["long answer", "short"], votes=1)
    assert text_of(steps[-1]).startswith("Answer 1 is better")
    assert "being drawn" not in steps[-1]


def test_the_examples_are_questions_about_handwriting():
    for example in examples():
        assert example.picture.size in ((56, 56), (56, 28))
        assert example.question
        assert len(set(example.answers)) == 2


def test_the_command_listens_on_loopback_unless_told_otherwise(checkpoint):
    from typer.testing import CliRunner

    from r1_reward import cli

    cli._register()
    for options, message in (
        (["--model", str(checkpoint), "--host", "0.0.0.0"], "the page has no key; accept requests from anyone with"),
        (["--model", "judge", "--base-url", "http://127.0.0.1:9/v1", "--max-pixels", "100"], "--max-pixels"),
    ):
        result = CliRunner().invoke(cli.app, ["ui", *options])
        assert result.exit_code != 0
        assert message in f"{result.output}{result.exception}"


# A browser.


@pytest.fixture(scope="module")
def url():
    """The page's address, around a judge that reads numbers."""
    import uvicorn

    from r1_reward.serve.api import create_app
    from r1_reward.serve.page import PATH, mount_page
    from r1_reward.serve.settings import ServerSettings

    class Slow(ScriptedJudge):
        def judge(self, question, first, second, seed, temperature):
            done = super().judge(question, first, second, seed, temperature)
            text = done.text.replace("<think>", f"<think>[Response 1]: {first}\n[Response 2]: {second}\n")
            return Completion(text=text, tokens=done.tokens, probability=done.probability)

    shared = RewardModel(Slow(seconds=0.05)).shared()
    app = mount_page(create_app(shared, ServerSettings()), shared, name="scripted <b>judge</b>")
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    while not server.started:
        time.sleep(0.02)
    yield f"http://127.0.0.1:{listener.getsockname()[1]}{PATH}"
    server.should_exit = True
    thread.join(30)
    assert not thread.is_alive()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("Chromium and chromedriver are not installed")
    webdriver = pytest.importorskip("selenium.webdriver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    profile = tmp_path_factory.mktemp("profile")
    for flag in (
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
        "--disable-component-update", "--disable-sync", "--no-first-run", "--disable-dev-shm-usage",
        f"--user-data-dir={profile}", "--window-size=1280,1000",
    ):  # fmt: skip
        options.add_argument(flag)
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    browser.set_page_load_timeout(180)
    yield browser
    browser.quit()


class Person:
    """Uses the page."""

    def __init__(self, browser, url):
        self.browser = browser
        browser.get(url)
        self.wait(lambda: self.find("#judge"))

    def find(self, css):
        return next(iter(self.browser.find_elements("css selector", css)), None)

    def wait(self, condition, seconds=120):
        end = time.monotonic() + seconds
        while not (found := condition()):
            assert time.monotonic() < end, self.browser.find_element("tag name", "body").text
            time.sleep(0.05)
        return found

    def write(self, field, text):
        box = self.wait(lambda: self.find(f"#{field} textarea, #{field} input:not([type=file])"))
        box.clear()
        box.send_keys(text)

    def has(self, field, text):
        return self.find(f"#{field} textarea, #{field} input:not([type=file])").get_attribute("value") == text

    def result(self):
        found = self.find("#result")
        return found.text if found else ""

    def click(self, name):
        button = self.find(f"#{name}")
        self.browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", button)
        button.click()


def test_a_person_uploads_a_picture_and_reads_the_verdict(browser, url, tmp_path):
    RED.save(tmp_path / "red.png")
    person = Person(browser, url)
    assert "scripted <b>judge</b>" in browser.page_source.replace("&lt;", "<").replace("&gt;", ">")
    person.wait(lambda: person.find("#pictures input[type=file]")).send_keys(str(tmp_path / "red.png"))
    person.wait(lambda: person.find("#pictures img"))
    person.write("question", "Which is larger?")
    person.write("answer-1", "<img src=x onerror=\"document.title='hacked'\"> 4")
    person.write("answer-2", "**seven** 7")
    person.click("judge")
    person.wait(lambda: "Answer 2 is better" in person.result() and "being drawn" not in person.result())
    says = person.result()
    assert "does not change with the order" in says
    assert "answer 2 is better: 90%" in says
    assert "<img src=x onerror=" in says, "shown as text"
    assert "**seven** 7" in says
    assert browser.title == "r1-reward"
    assert person.find("#result img") is None


def test_a_person_compares_two_pictures(browser, url, files):
    person = Person(browser, url)
    person.write("question", "Which is larger?")
    person.write("criterion", "The number")
    for number, colour in ((1, "red"), (2, "blue")):
        person.write(f"answer-{number}", str(number))
        person.wait(lambda number=number: person.find(f"#answer-{number} input[type=file]")).send_keys(files[colour])
        person.wait(lambda number=number: person.find(f"#answer-{number} img"))
    person.click("judge")
    person.wait(lambda: "Answer 2 is better" in person.result() and "being drawn" not in person.result())
    assert len(browser.find_elements("css selector", "#result img")) == 2
    person.wait(lambda: person.find("#judge").is_enabled())
    person.click("example-1")
    person.wait(partial(person.has, "answer-1", examples()[0].answers[0]))
    person.wait(lambda: person.find("#answer-1 img") is None and person.has("criterion", ""))


def test_votes_come_in_one_by_one_for_several_answers(browser, url):
    person = Person(browser, url)
    person.write("question", "Which is larger?")
    person.click("more")
    person.wait(lambda: (box := person.find("#answer-3 textarea")) and box.is_displayed())
    for number, text in enumerate(("3", "8", "5"), 1):
        person.write(f"answer-{number}", text)
    person.click("judge")
    person.wait(lambda: "No verdict yet" in person.result() or "is best" in person.result())
    person.wait(lambda: "Answer 2 is best" in person.result())
    person.click("judge")
    person.wait(lambda: "Answer 2 is best" in person.result())


def test_an_example_is_one_click_away(browser, url):
    person = Person(browser, url)
    for number in (1, 2, 1):  # each of them any number of times
        person.click(f"example-{number}")
        person.wait(partial(person.has, "question", examples()[number - 1].question))
        person.wait(partial(person.has, "answer-2", examples()[number - 1].answers[1]))
        person.wait(lambda: person.find("#pictures img"))
    person.click("judge")
    person.wait(lambda: "verdict" in person.result().lower() or "is better" in person.result())


def test_mistakes_are_shown_in_the_browser(browser, url):
    person = Person(browser, url)
    person.write("question", "Which?")
    person.click("judge")
    person.wait(lambda: "Write at least two answers." in person.result())


def test_the_http_routes_answer_beside_the_page(url):
    import json
    import urllib.request

    body = {"question": "?", "response_1": "4", "response_2": "7"}
    request = urllib.request.Request(
        url.replace("/ui", "/v1/compare"), json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        assert json.load(answer)["preferred"] == 2
