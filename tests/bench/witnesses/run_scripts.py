"""Run the benchmarks' own scoring scripts on our generated predictions and write down their numbers.

    PYTHONPATH=tests/support python tests/bench/witnesses/run_scripts.py CLONES [NAME...]

CLONES holds a git clone of each repository under the repository's name. The scripts are read out of git at the commit
below and run as they are: what they import and the scoring does not need (servers, models, progress bars) is replaced
by stand-ins, a judge by one that says what was generated. Numbers that a script only prints rounded are read from its
variables. No test runs this; the tests compare our scores with the JSON files beside this one.
"""

from __future__ import annotations

import contextlib
import io
import json
import random
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import witness_rows as made

HERE = Path(__file__).parent
COMMITS = {
    "VL_RewardBench": "9b10abdc91678bc5fb2bd7eea4d73d3af484db9f",
    "multimodal_rewardbench": "b4b92cdac0df81b2a134bcb1b91411d67b55f80f",
    "r1_reward": "3693413abedd4a1efaa9484143acfaa5d78a8d2b",
    "MM-RLHF": "7c8af1d2cacc252e4310881d2af4f90eacf2a5f0",
    "MMRB2": "7ff0552cf298441af5ebbabea634b682ef04afee",
    "OmniReward": "cc8118595009f9ca21ceebf105cf54a24d732796",
    "EditReward": "edb027edde6080b8a9521ef8e87049b3797f8374",
    "reward-bench": "05a9005efb607249822c193590c8ecab87c77052",
}
OWNERS = {
    "VL_RewardBench": "vl-rewardbench", "multimodal_rewardbench": "facebookresearch", "r1_reward": "yfzhang114",
    "MM-RLHF": "Kwai-YuanQi", "MMRB2": "facebookresearch", "OmniReward": "HongbangYuan",
    "EditReward": "TIGER-AI-Lab", "reward-bench": "allenai",
}  # fmt: skip
Numbers = dict[str, Any]


class Script:
    """A file of a clone; every call of :meth:`run` executes it anew."""

    def __init__(self, clones: Path, repository: str, path: str) -> None:
        folder = clones / repository
        git = folder / ".git" if (folder / ".git").exists() else folder
        show = ["git", f"--git-dir={git}", "show", f"{COMMITS[repository]}:{path}"]
        self.repository, self.path = repository, path
        self.source = subprocess.run(show, check=True, capture_output=True).stdout.decode()

    def run(self, name: str = "script", modules: Mapping[str, Any] | None = None, **names: Any) -> dict[str, Any]:
        """Return the script's globals after executing it under ``name``, ``names`` defined before."""
        space = {"__name__": name, "__file__": f"/{self.path}", **names}
        with modules_as(modules or {}), quiet():
            exec(compile(self.source, self.path, "exec"), space)
        return space


@contextlib.contextmanager
def modules_as(modules: Mapping[str, Any]) -> Iterator[None]:
    """Let imports find these modules; unlike ``mock.patch.dict``, keep what else is imported meanwhile."""
    before = {name: sys.modules.get(name) for name in modules}
    sys.modules.update(modules)
    try:
        yield
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


def quiet() -> Any:
    return contextlib.redirect_stdout(io.StringIO())


def stand_in(name: str, **members: Any) -> ModuleType:
    module = ModuleType(name)
    vars(module).update(members)
    return module


def variables(function: str, call: Callable[[], Any]) -> dict[str, Any]:
    """Return the local variables of the function of that name when it last returned during ``call``."""
    found: dict[str, Any] = {}

    def watch(frame: Any, event: str, _: Any) -> None:
        if event == "return" and frame.f_code.co_name == function:
            found.update(frame.f_locals)

    sys.setprofile(watch)
    try:
        call()
    finally:
        sys.setprofile(None)
    return found


@contextlib.contextmanager
def lines_file(rows: list[Any]) -> Iterator[str]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        yield str(file)


# ---- VL-RewardBench


def run_vl(clones: Path) -> Iterator[tuple[Script, str, Numbers]]:
    script = Script(clones, "VL_RewardBench", "cal.py")
    space = script.run(modules={"openai": stand_in("openai", OpenAI=mock.Mock()), "tqdm": stand_in("tqdm", tqdm=iter)})

    def scores(file: str, k: int) -> Numbers:
        def score() -> None:
            # What the script's main() does for one K: its filter's result is not used.
            found = space["distribution"](file, k=k, reparse=True, use_llm_parse=False)
            space["filter_out_doesntMatch"](found)
            space["distribution_dataset"](space["classify"](found, k=k))

        local = variables("distribution_dataset", score)
        return {
            "overall": local["overall_acc"],
            "macro": local["macro_average"],
            "n": sum(local["group_total"].values()),
            "right": dict(sorted(local["group_correct"].items())),
            "of": dict(sorted(local["group_total"].items())),
        }

    numbers: Numbers = {}
    for seed in made.VL_UNREADABLE:
        with lines_file(made.vl_result_rows(made.vl_items(seed))) as file, quiet():
            random.seed(1234)
            numbers[f"seed {seed}"] = {f"K={k}": scores(file, k) for k in (1, 3, 5, 7, 9)}
            numbers[f"seed {seed}"]["all votes"] = scores(file, made.VL_VOTES)
    yield (
        script,
        "the steps of main() for K of 1, 3, 5, 7, 9 in its order and with its seed, then with K=10, which takes all "
        "votes; overall and macro from distribution_dataset's variables",
        numbers,
    )


# ---- Multimodal RewardBench, r1_reward, MM-RLHF


def _accuracies(text: str) -> Numbers:
    """Read the lines ``acc NAME: RIGHT / N = SHARE``, which are printed in full."""
    found = re.findall(r"^acc (\S+): (\d+) / (\d+) = (\S+)$", text, re.M)
    return {name: {"right": int(right), "n": int(n), "accuracy": float(share)} for name, right, n, share in found}


def _run_accuracy(script: Script, rows: list[Any]) -> Numbers:
    space = script.run(modules={"tqdm": stand_in("tqdm", tqdm=iter)})
    with lines_file(rows) as file, contextlib.redirect_stdout(io.StringIO()) as printed:
        space["compute_acc"](mock.Mock(answers_file=file))
    return _accuracies(printed.getvalue())


def run_mrb(clones: Path) -> Iterator[tuple[Script, str, Numbers]]:
    script = Script(clones, "multimodal_rewardbench", "scripts/2_get_accuracy.py")
    numbers = {f"seed {seed}": _run_accuracy(script, made.mrb_rows(seed)) for seed in range(3)}
    yield script, "compute_acc() on a file; it prints all digits", numbers


class Whole(list):
    """A list of which a slice is the whole: get_acc.py cuts the rewards to one, then reads the second."""

    def __getitem__(self, place: Any) -> Any:
        return self if isinstance(place, slice) else super().__getitem__(place)


def run_r1(clones: Path) -> Iterator[tuple[Script, str, Numbers]]:
    script = Script(clones, "r1_reward", "inference/VL-Reward-Bench/get_acc.py")
    space = script.run()

    def loads(line: str) -> Any:
        return {k: Whole(v) if isinstance(v, list) else v for k, v in json.loads(line).items()}

    numbers: Numbers = {}
    for seed in range(3):
        with lines_file(made.vl_rewards(seed)) as file:
            try:
                space["json"] = json
                space["calculate_accuracy_and_stats"](file)
            except IndexError:
                pass
            else:
                raise AssertionError("get_acc.py runs as shipped now: drop Whole")
            space["json"] = mock.Mock(loads=loads)
            results, average = space["calculate_accuracy_and_stats"](file)
        macro = 0
        for one in results.values():  # as the lines under its __main__ add them up
            macro += one["accuracy"]
        numbers[f"seed {seed}"] = {"categories": results, "average": average, "macro": macro / 3}
    yield (
        script,
        "calculate_accuracy_and_stats() on a file. As shipped it stops with IndexError, as it cuts the two rewards to "
        "one; it was run on lists whose slice is the whole list. The macro average is added up as under __main__",
        numbers,
    )
    script = Script(clones, "r1_reward", "inference/Multimodal-Reward/1_get_accuracy.py")
    numbers = {f"seed {seed}": _run_accuracy(script, made.mrb_rewards(seed)) for seed in range(3)}
    yield script, "compute_acc() on a file; it prints all digits", numbers
    script = Script(clones, "r1_reward", "inference/MM-RLHF-Reward/get_acc.py")
    yield script, "the whole script, its empty input path opened as our file; numbers from its variables", _mm(script)


def _mm(script: Script) -> Numbers:
    numbers: Numbers = {}
    for seed in range(3):
        with lines_file(made.mm_rewards(seed)) as file:
            arguments = mock.Mock(**{"ArgumentParser.return_value.parse_args.return_value.input_file": file})
            space = script.run(modules={"argparse": arguments}, open=lambda *_, file=file: io.StringIO(_text(file)))
        numbers[f"seed {seed}"] = {"all": space["overall_stats"], **space["category_stats"]}
    return numbers


def _text(file: str) -> str:
    return Path(file).read_text(encoding="utf-8")


def run_mm(clones: Path) -> Iterator[tuple[Script, str, Numbers]]:
    script = Script(clones, "MM-RLHF", "llava/eval/cal_performance_mmreweard_bench.py")
    yield script, "the whole script on a file; numbers from its variables, as it prints two digits", _mm(script)


# ---- MMRB2


def run_mmrb2(clones: Path) -> Iterator[tuple[Script, str, Numbers]]:
    script = Script(clones, "MMRB2", "evaluate/compute_scores/compute_accuracy.py")
    numbers: Numbers = {}
    for seed in range(3):
        with tempfile.TemporaryDirectory() as name:
            folder, files = Path(name), []
            for task in made.MMRB2_TASKS:
                chosen, predictions = made.mmrb2_task(seed, task)
                pairs = [{"id": id, "chosen": letter} for id, letter in chosen.items()]
                (folder / f"{task}.json").write_text(json.dumps({"pairs": pairs}))
                files.append(folder / f"{task}-predictions.json")
                files[-1].write_text(json.dumps(predictions))
            space = script.run(modules={"script": stand_in("script")})
            with quiet():
                local = variables("evaluate_all_tasks", partial(space["evaluate_all_tasks"], files, name))
        numbers[f"seed {seed}"] = {
            **{task: vars(result) for task, result in zip(made.MMRB2_TASKS, local["results"], strict=True)},
            "overall": {"accuracy": local["overall_accuracy"], "total_evaluated": local["total_evaluated"]},
        }
    yield script, "evaluate_all_tasks() on four files; the overall accuracy from its variables", numbers


# ---- Omni-RewardBench

OMNI_SAID = {
    1: ["[[A]]", r"So \boxed{A}.", "Final: [[A]], not [[C]]"],
    2: ["[[B]]", r"\boxed{B}", "The better one: [[B]]"],
    0: ["[[C]]", r"A tie: \boxed{C}"],
    None: ["", "[[A]] or [[B]]", r"\boxed{A} \boxed{B}", "A", "[[D]]"],
}
OMNI_LABELS = {1: "response1", 2: "response2", 0: "tie"}


def run_omni(clones: Path) -> Iterator[tuple[Script, str, Numbers]]:
    script = Script(clones, "OmniReward", "evaluation_experiments/run_exp.py")
    log = stand_in("loguru", logger=mock.Mock())
    video = Script(clones, "OmniReward", "utils/video_utils.py").run(
        modules={"loguru": log, "decord": stand_in("decord", VideoReader=None, cpu=None)}
    )
    numbers: Numbers = {}
    for seed in range(2):
        for task in made.OMNI_TASKS:
            prompts = Script(clones, "OmniReward", f"utils/prompts/{task}.py").run()
            for ties in (True, False):
                given = ["--task", task, "--model_name", "m", "--model_version", "v", "--api_url", "u", "--overwrite"]
                with mock.patch.object(sys, "argv", ["x", *given, *["--with_tie"] * ties]):
                    space = script.run("__main__", _omni_modules(log, video, prompts, task, made.omni_rows(seed, task)))
                numbers.setdefault(f"seed {seed}", {}).setdefault(task, {})["with ties" if ties else "without ties"] = {
                    "accuracy": space["acc"], "right": space["true_count"], "n": len(space["results"]),
                }  # fmt: skip
    yield (
        script,
        "the whole script, once with --with_tie and once without, for its seven tasks; a judge that says what was "
        "generated, up to five times a row, is read by the real parse_judgement; no file is written",
        numbers,
    )


def _omni_modules(log: ModuleType, video: Any, prompts: Any, task: str, rows: list[made.OmniRow]) -> dict[str, Any]:
    samples = [
        {
            "prompt": f"Question #{i}#", "criteria": "c", "response1": "r1", "response2": "r2", "image": "i",
            "video": "v", "criteria_preference": OMNI_LABELS[row.preferred],
        }
        for i, row in enumerate(rows)
    ]  # fmt: skip
    asked = [0] * len(rows)

    class Judge:
        def __init__(self, **_: Any) -> None:
            pass

        def generate(self, contexts: str, **_: Any) -> str:
            number = int(re.findall(r"Question #(\d+)#", contexts)[0])
            said = OMNI_SAID[rows[number].attempts[asked[number]]]
            asked[number] += 1
            return said[(number + asked[number]) % len(said)]

    reading = {name: video[name] for name in ("IMAGE_TOKEN", "VIDEO_TOKEN", "parse_judgement")}
    return {
        "dotenv": stand_in("dotenv", load_dotenv=lambda: None),
        "loguru": log,
        "PIL": stand_in("PIL", Image=mock.Mock()),
        "utils": stand_in("utils", write_to_json=lambda *_, **__: None, read_json=None),
        "utils.video_utils": stand_in("utils.video_utils", OpenAI=Judge, **reading),
        "utils.prompts": stand_in("utils.prompts"),
        f"utils.prompts.{task}": stand_in(f"utils.prompts.{task}", **{k: prompts[k] for k in prompts if k[0] != "_"}),
        "dataset": stand_in("dataset"),
        "dataset.OmniRewardBench": stand_in("dataset.OmniRewardBench"),
        "dataset.OmniRewardBench.load_omni_reward_bench": stand_in("load", load_omni_reward_bench=lambda task: samples),
    }


# ---- EditReward-Bench

EDIT_SAID = {1: "[[{a}>{b}]]", 2: r"So \boxed{{{b}>{a}}}", 0: "[[{a}={b}]]", made.UNREADABLE: "I cannot say."}


def run_edit(clones: Path) -> Iterator[tuple[Script, str, Numbers]]:
    for candidates in (2, 3, 4):
        script = Script(clones, "EditReward", f"EditReward/evaluate/inference_{candidates}pair_hf.py")
        numbers = {f"seed {s}": _edit(clones, script, candidates, made.edit_rows(s, candidates)) for s in range(3)}
        yield script, "main() on generated rows, with a judge that says what was generated", numbers
    script = Script(clones, "EditReward", "EditReward/evaluate/eval_bench.py")
    numbers = {f"seed {seed}": _edit_strict(script, seed) for seed in range(3)}
    yield (
        script,
        "evaluate_edit_reward_bench() on generated scores, no two of a group alike, and rankings without ties: the one "
        "place where the groups of two, three and four are pooled",
        numbers,
    )


def _edit(clones: Path, script: Script, candidates: int, rows: list[made.EditRow]) -> Numbers:
    template = Script(
        clones, "EditReward",
        f"EditReward/evaluate/genaibench/templates/image_edition/pairwise_{candidates}pair.txt",
    ).source  # fmt: skip
    data = [
        {
            "id": row.id, "dataset": f"{candidates}pair", "instruction": f"Edit #{i}#", "source_image": None,
            "candidate_1": None, "candidate_2": None, "comparison_type": f"{row.first}vs{row.second}",
            "ranking": _ranking(row),
        }
        for i, row in enumerate(rows)
    ]  # fmt: skip

    class Judge:
        def __call__(self, parts: list[Any]) -> str | None:
            text = "".join(part["content"] for part in parts if part["type"] == "text")
            row = rows[int(re.findall(r"Edit #(\d+)#", text)[0])]
            if row.said == made.FAILED:
                raise TimeoutError
            return None if row.said == made.MISSING else EDIT_SAID[row.said].format(a=row.first, b=row.second)

    modules = {
        "fire": stand_in("fire"),
        "tqdm": stand_in("tqdm", tqdm=mock.MagicMock()),
        "genaibench": stand_in("genaibench"),
        "genaibench.mllm_tools": stand_in("genaibench.mllm_tools", MLLM_Models=lambda _: Judge),
        "genaibench.utils": stand_in("genaibench.utils", load_template=lambda *_: template),
        "datasets": stand_in("datasets", load_dataset=lambda _: {"train": data}),
    }
    modules["tqdm"].tqdm.return_value.__enter__.return_value.n = 1  # no file of what is half done
    space = script.run(modules=modules)
    with tempfile.TemporaryDirectory() as folder, quiet():
        found = space["main"](results_dir=folder, max_workers=4)
    names = ("total_examples", "correct_examples", "accuracy", "individual_accuracy", "total_groups", "correct_groups",
             "group_accuracy")  # fmt: skip
    return {name: found[name] for name in names if name in found}


def _ranking(row: made.EditRow) -> str:
    a, b = row.first, row.second
    return {1: f"{a}>{b}", 2: f"{b}>{a}", 0: f"{a}={b}"}[row.preferred]


def _edit_strict(script: Script, seed: int) -> Numbers:
    space = script.run(modules={"EditReward": stand_in("EditReward", EditRewardInferencer=None)})
    space["gc"] = mock.Mock()
    space["tqdm"] = lambda rows, **_: rows

    class Model:
        def reward(self, image_paths: list[str], **_: Any) -> Any:
            return [[mock.Mock(item=lambda: float(image_paths[0]))]]

    with tempfile.TemporaryDirectory() as name:
        for candidates in (2, 3, 4):
            items = [
                {"prompt": "p", "path_src": "s", "paths_generated": list(map(repr, scores)),
                 "human_vote": {"ranking": ranking}}
                for ranking, scores in made.edit_scores(seed, candidates)
            ]  # fmt: skip
            (Path(name) / f"EditReward_Bench_{candidates}pair.json").write_text(json.dumps(items))
        out = Path(name) / "x_accuracy.json"
        with quiet():
            space["evaluate_edit_reward_bench"](Model(), io.StringIO(), str(out), name)
        found = json.loads(out.read_text())
    names = ("strict_ranking_accuracy", "strict_correct_count", "strict_total_samples")
    return {group: {name: values[name] for name in names} for group, values in found.items()}


# ---- RewardBench 2


def run_rb2(clones: Path) -> Iterator[tuple[Script, str, Numbers]]:
    script = Script(clones, "reward-bench", "scripts/run_generative_v2.py")
    numbers = {}
    for seed in range(3):
        for way, options in (("four-way", []), ("ratings", ["--score_w_ratings"])):
            numbers.setdefault(f"seed {seed}", {})[way] = _rb2(clones, script, seed, options)
    yield (
        script,
        "main() with a vLLM stand-in that says what was generated, once as it is and once with --score_w_ratings; the "
        "real rewardbench/generative_v2.py reads the texts, and the real process_single_model of rewardbench/utils.py "
        "makes the Ties score",
        numbers,
    )


def _rb2(clones: Path, script: Script, seed: int, options: list[str]) -> Numbers:
    from datasets import Dataset

    rows: list[Any] = []
    said: dict[str, Any] = {}  # by the text of an answer

    def answers(name: str, right: int, texts: int) -> tuple[list[Any], list[Any]]:
        chats = [[{"role": "user", "content": name}, {"role": "assistant", "content": f"<{name}#{i}>"}]
                 for i in range(texts)]  # fmt: skip
        return chats[:right], chats[right:]

    for subset in made.RB2_SUBSETS:
        verdicts, ratings = made.rb2_verdicts(seed, subset), made.rb2_ratings(seed, subset)
        for i, (verdict, rates) in enumerate(zip(verdicts, ratings, strict=True)):
            name = f"{subset}:{i}"
            chosen, rejected = answers(name, 1, 4)
            rows.append({"id": name, "subset": subset, "num_correct": 1, "texts_chosen": chosen,
                         "texts_rejected": rejected})  # fmt: skip
            said |= {f"<{name}#{k}>": rate for k, rate in enumerate(rates)} | {name: verdict}
    for name, right, rates in made.rb2_ties(seed):
        chosen, rejected = answers(name, right, len(rates))
        rows.append({"id": name, "subset": "Ties", "num_correct": right, "texts_chosen": chosen,
                     "texts_rejected": rejected})  # fmt: skip
        said |= {f"<{name}#{k}>": rate for k, rate in enumerate(rates)}

    class Model:
        def __init__(self, *_: Any, **__: Any) -> None:
            pass

        def generate(self, prompts: list[str], **_: Any) -> list[Any]:
            return [mock.Mock(outputs=[mock.Mock(text=_rb2_text(prompt, said))]) for prompt in prompts]

    class Tokenizer:
        def apply_chat_template(self, messages: list[Any], **_: Any) -> str:
            return messages[-1]["content"]

        def __call__(self, _: str, **__: Any) -> Any:
            return {"input_ids": [0]}

    saved: list[Any] = []

    def save(results: Any, *_: Any, **__: Any) -> str:
        saved.append(results)
        return ""

    package = stand_in(
        "rewardbench",
        load_eval_dataset_multi=lambda **_: Dataset.from_list(rows),
        process_single_model=_function(Script(clones, "reward-bench", "rewardbench/utils.py"), "process_single_model"),
        save_to_hub=save,
    )
    clients = {
        "anthropic": stand_in("anthropic"), "openai": stand_in("openai", OpenAI=None),
        "google": stand_in("google", genai=mock.Mock()), "google.genai": stand_in("google.genai", types=mock.Mock()),
        "together": stand_in("together", Together=None),
    }  # fmt: skip
    reading = Script(clones, "reward-bench", "rewardbench/generative_v2.py").run(modules=clients)
    modules = {
        "vllm": stand_in("vllm", LLM=Model, SamplingParams=mock.Mock()),
        "rewardbench": package,
        "rewardbench.generative_v2": stand_in("rewardbench.generative_v2", **reading),
    }
    space = script.run(modules=modules)
    space["AutoTokenizer"] = mock.Mock(from_pretrained=lambda _: Tokenizer())
    with mock.patch.object(sys, "argv", ["x", "--model", "m", "--do_not_save", *options]), quiet():
        space["main"]()
    return {name: float(value) for name, value in saved[0].items() if name in (*made.RB2_SUBSETS, "Ties")}


def _rb2_text(prompt: str, said: Mapping[str, Any]) -> str:
    """Answer a prompt: four answers have a best one, a single one has a rating."""
    found = re.findall(r"<([^<>#\n]+)#(\d+)>", prompt)
    if len(found) == 1:
        rate = said[f"<{found[0][0]}#{found[0][1]}>"]
        return "I would not rate this." if rate is None else f"It is fine.\n\n{rate}"
    verdict, place = said[found[0][0]], [int(number) for _, number in found].index(0)
    return "Hard to say." if verdict is None else f"So [[{'ABCD'[place if verdict else (place + 1) % 4]}]]"


def _function(script: Script, name: str) -> Any:
    """Return a function of a module that cannot be imported here, with what it calls and numpy."""
    import ast
    from collections import defaultdict

    import numpy

    tree = ast.parse(script.source)
    tree.body = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name in (name, _HELPER)]
    space: dict[str, Any] = {"np": numpy, "defaultdict": defaultdict, "Dict": dict, "List": list, "Tuple": tuple}
    exec(compile(tree, script.path, "exec"), space)
    return space[name]


_HELPER = "_compute_prompt_stats"

RUNS = {
    "vl-rewardbench": run_vl, "multimodal-rewardbench": run_mrb, "r1-reward": run_r1, "mm-rlhf-rewardbench": run_mm,
    "mmrb2": run_mmrb2, "omni-rewardbench": run_omni, "editreward-bench": run_edit, "rewardbench-2": run_rb2,
}  # fmt: skip


def main(clones: Path, names: list[str]) -> None:
    for name in names or RUNS:
        witnesses = [
            {
                "repository": f"https://github.com/{OWNERS[script.repository]}/{script.repository}",
                "commit": COMMITS[script.repository],
                "script": script.path,
                "how": how,
                "numbers": numbers,
            }
            for script, how, numbers in RUNS[name](clones)
        ]
        (HERE / f"{name}.json").write_text(json.dumps(witnesses, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
