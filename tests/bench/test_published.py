"""Published rows against method.md section 5, and their arithmetic against hand-worked counts and enumeration."""

from __future__ import annotations

from decimal import ROUND_DOWN, ROUND_HALF_UP, Decimal
from fractions import Fraction
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r1_reward.bench.benchmark import NONE, NOT_STATED, PublishedRow
from r1_reward.bench.benchmarks import find_benchmark
from r1_reward.bench.published import below_chance, explained_by_drops, fits, impossible

VL, MULTIMODAL, MM_RLHF = "vl-rewardbench", "multimodal-rewardbench", "mm-rlhf-rewardbench"
BENCHMARKS = {name: find_benchmark(name) for name in (VL, MULTIMODAL, MM_RLHF)}
PUBLISHED = [
    (name, row) for name, benchmark in BENCHMARKS.items() for row in benchmark.published if "2505.02835" in row.source
]
"""The R1-Reward paper's."""
COLUMNS = {name: tuple(one.heading for one in found.columns) for name, found in BENCHMARKS.items()}
GROUPINGS = {name: found.groupings for name, found in BENCHMARKS.items()}

# Typed from method.md section 5, in its order of columns.
METHOD = {
    (VL, "R1-Reward"): (63.84, 85.71, 64.78, 71.92, 71.44),
    (VL, "R1-Reward, voting@15"): (66.32, 89.06, 73.70, 76.46, 76.36),
    (VL, "IXC-2.5-Reward"): (84.70, 62.50, 62.90, 65.80, 70.00),
    (VL, "GPT-4o"): (49.10, 67.60, 70.50, 65.80, 62.40),
    (VL, "Claude-3.7-Sonnet"): (68.08, 70.70, 60.81, 66.31, 66.53),
    (VL, "Gemini-1.5-Pro"): (50.80, 72.50, 64.20, 67.20, 62.50),
    (VL, "MM-RLHF-Reward"): (45.04, 50.45, 57.55, 50.15, 51.01),
    (MULTIMODAL, "R1-Reward"): (82.2, 77.5, 74.0, 74.9, 83.1, 79.6, 99.6, 86.5),
    (MULTIMODAL, "R1-Reward, voting@15"): (83.3, 78.0, 77.2, 74.6, 81.3, 85.8, 99.4, 87.0),
    (MULTIMODAL, "GPT-4o"): (70.8, 62.6, 69.0, 72.0, 67.6, 62.1, 74.8, 87.2),
    (MM_RLHF, "R1-Reward"): (80.95, 89.19, 82.35, 75.00, 72.00, 80.59, 54.35),
    (MM_RLHF, "R1-Reward, voting@15"): (83.33, 97.30, 91.18, 78.12, 80.00, 86.47, 67.39),
    (MM_RLHF, "MM-RLHF-Reward"): (83, 97, 74, 69, 88, 82, 63),
    (MM_RLHF, "Claude-3.7-Sonnet"): (66.67, 91.89, 91.18, 87.50, 76.00, 82.35, 65.22),
}
ABLATION = {"56.41", "60.80", "64.80", "67.36", "68.96"}


def published(suite, model):
    """The benchmark, and its row of a model."""
    (row,) = [row for name, row in PUBLISHED if (name, row.model) == (suite, model)]
    return BENCHMARKS[suite], row


def made(suite, values, grouping="official", **more):
    """The benchmark, and a made-up row."""
    values = dict(zip(COLUMNS[suite], values, strict=True))
    return BENCHMARKS[suite], PublishedRow("made", values, "test", grouping, **more)


def test_every_published_row_is_there_with_its_values():
    full = [(suite, row) for suite, row in PUBLISHED if row.grouping != NONE]
    assert {(suite, row.model) for suite, row in full} == set(METHOD)
    for suite, row in full:
        assert tuple(row.values) == COLUMNS[suite]
        assert tuple(map(float, row.values.values())) == METHOD[suite, row.model]
    ablation = [(suite, row) for suite, row in PUBLISHED if row.grouping == NONE]
    assert {row.values["overall"] for _, row in ablation} == ABLATION
    assert all(suite == VL and set(row.values) == {"overall"} for suite, row in ablation)
    assert len(PUBLISHED) == len(METHOD) + len(ABLATION)


def test_every_row_states_source_grouping_orders_and_rule():
    for suite, row in PUBLISHED:
        assert "2505.02835" in row.source
        assert row.grouping in (*GROUPINGS[suite], NONE, NOT_STATED)
        assert row.orders and row.rule
    for suite in COLUMNS:
        for model, votes in (("R1-Reward", 1), ("R1-Reward, voting@15", 15)):
            _, row = published(suite, model)
            assert (row.orders, row.rule, row.votes) == ("preferred first", "wrong", votes)
    assert published(VL, "R1-Reward")[1].grouping == "paper"
    assert published(VL, "IXC-2.5-Reward")[1].grouping == "official"
    assert published(VL, "GPT-4o")[1].rule == "drop"
    _, claude = published(VL, "Claude-3.7-Sonnet")
    assert (claude.grouping, claude.orders, claude.rule) == (NOT_STATED,) * 3


def test_sizes_are_those_of_the_benchmarks():
    totals = {suite: {sum(sizes.values()) for sizes in groups.values()} for suite, groups in GROUPINGS.items()}
    assert totals == {VL: {1250}, MULTIMODAL: {4711, 5211}, MM_RLHF: {170}}
    # 233 RLAIF-V and 68 RLHF-V rows change sides between the groupings.
    assert GROUPINGS[VL]["paper"]["general"] - GROUPINGS[VL]["official"]["general"] == 233 + 68
    assert GROUPINGS[VL]["official"]["hallucination"] - GROUPINGS[VL]["paper"]["hallucination"] == 233 + 68


@pytest.mark.parametrize(
    ("suite", "model", "grouping", "counts", "rows"),
    [
        (VL, "R1-Reward", "paper", (309, 384, 206), 1250),
        (VL, "IXC-2.5-Reward", "official", (155, 468, 200), 1250),
        (VL, "Gemini-1.5-Pro", "official", (93, 543, 204), 1250),
        (MULTIMODAL, "R1-Reward", "official", (483, 484, 472, 427, 463, 506, 1038), 4711),
        (MM_RLHF, "R1-Reward", "official", (34, 33, 28, 24, 18), 170),
        (MM_RLHF, "R1-Reward, voting@15", "official", (35, 36, 31, 25, 20), 170),
        (MM_RLHF, "Claude-3.7-Sonnet", "official", (28, 34, 31, 28, 19), 170),
        (MM_RLHF, "MM-RLHF-Reward", "official", (35, 36, 25, 22, 22), 170),
    ],
)
def test_rows_that_are_whole_counts_under_one_grouping_only(suite, model, grouping, counts, rows):
    benchmark, row = published(suite, model)
    assert impossible(benchmark, row) is None
    found = fits(benchmark, row)
    assert list(found) == [grouping]
    assert tuple(k for k, _ in found[grouping].counts) == counts
    assert (found[grouping].rows, found[grouping].missing) == (rows, 0)


def test_r1_reward_under_the_official_grouping_is_impossible():
    benchmark, row = published(VL, "R1-Reward")
    assert impossible(benchmark, row, "paper") is None
    assert str(fits(benchmark, row)["paper"]) == "309, 384, 206: 899/1250"
    reason = impossible(benchmark, row, "official")
    assert reason.startswith("63.84 is not k/183; the categories give 77.18 overall, not 71.92")
    assert "it fits 484/448/318 exactly (309, 384, 206: 899/1250)" in reason
    assert "69.35 overall" in impossible(benchmark, row, "early script")


def test_ixc_fits_no_other_grouping():
    benchmark, row = published(VL, "IXC-2.5-Reward")
    # 410/484, 280/448, 200/318 are each possible, but make 890/1250.
    assert impossible(benchmark, row, "paper").startswith("the categories give 71.20 (890/1250) overall, not 65.8")
    assert "73.81" in impossible(benchmark, row, "early script")


def test_voting_at_15_is_impossible_on_all_rows():
    benchmark, row = published(VL, "R1-Reward, voting@15")
    reason = impossible(benchmark, row)
    assert "73.70 is not k/318; 76.46 is not k/1250" in reason
    assert "rows must be missing; 35 would explain it (317/478, 399/448, 213/289)" in reason
    assert fits(benchmark, row) == {}
    assert not explained_by_drops(benchmark, row)  # its rule counts failures as wrong
    for other in ("official", "early script"):
        assert "even up to" in impossible(benchmark, row, other)


def test_gpt4o_is_possible_only_with_rows_dropped():
    benchmark, row = published(VL, "GPT-4o")
    reason = impossible(benchmark, row)
    assert "49.1 is not k/183; 70.5 is not k/318" in reason
    assert "12 would explain it (86/175, 506/748, 222/315)" in reason
    assert explained_by_drops(benchmark, row)
    for other in ("paper", "early script"):
        assert "even up to" in impossible(benchmark, row, other)


def test_claude_on_vl_fits_no_grouping():
    reason = impossible(*published(VL, "Claude-3.7-Sonnet"))
    assert "68.08 is not k/183, k/484 or k/631" in reason
    assert "66.31 is not k/1250" in reason


def test_mm_rlhf_reward_on_vl_is_one_unit_of_the_last_digit_off():
    # 218/484, 226/448 and 183/318 are 627/1250 = 50.16 exactly; neither rounding nor cutting gives 50.15.
    reason = impossible(*published(VL, "MM-RLHF-Reward"))
    assert "50.15 is not k/1250; the categories give 50.16 (627/1250) overall" in reason


def test_multimodal_overalls_are_unweighted_means_of_the_columns():
    for suite, row in PUBLISHED:
        if suite == MULTIMODAL:
            overall, *columns = map(Decimal, row.values.values())
            assert (sum(columns) / 7).quantize(Decimal("0.1"), ROUND_HALF_UP) == overall
    reason = impossible(*published(MULTIMODAL, "GPT-4o"))
    assert "67.6 is not k/514" in reason
    assert "give 72.81 or 73.00 overall, not 70.8" in reason
    assert "the overall is the unweighted mean of the columns, 70.76" in reason
    assert impossible(*published(MULTIMODAL, "R1-Reward, voting@15")).startswith("85.8 is not k/582")


def test_ablation_rows_are_judged_by_their_overall():
    found = {
        row.values["overall"]: impossible(BENCHMARKS[suite], row) for suite, row in PUBLISHED if row.grouping == NONE
    }
    assert [overall for overall, reason in found.items() if reason] == ["56.41"]  # 705/1250 is 56.40
    assert found["56.41"].startswith("56.41 is not k/1250")


def test_a_macro_that_is_not_the_mean_is_named():
    reason = impossible(*made(VL, ["63.84", "85.71", "64.78", "71.92", "71.92"], "paper"))
    assert reason.startswith("macro 71.92 is not the mean of the categories, 71.44")


def test_acc_plus_must_be_a_share_of_the_ids():
    values = list(published(MM_RLHF, "R1-Reward")[1].values.values())
    assert impossible(*made(MM_RLHF, values)) is None
    assert "55.00 is not k/46" in impossible(*made(MM_RLHF, [*values[:-1], "55.00"]))


def test_zeros_at_every_second_decimal_are_one_decimal():
    # 93/183 = 50.82 %: printed "50.80" only where the row was given with one decimal.
    values = ["50.80", "72.50", "64.20", "67.20", "62.50"]
    assert impossible(*made(VL, values)) is None
    assert "50.80 is not k/183" in impossible(*made(VL, [*values[:3], "67.21", "62.50"]))


def test_a_whole_row_may_be_truncated_instead_of_rounded():
    # 155/183 = 84.699, 467/749 = 62.350, 200/318 = 62.893; 822/1250 = 65.76; mean 69.981
    cut = ["84.6", "62.3", "62.8", "65.7", "69.9"]
    assert impossible(*made(VL, cut)) is None
    assert impossible(*made(VL, ["84.7", *cut[1:]])) is not None  # one rounded, the others cut: no script prints that


def show(value: Fraction, decimals: int, rounding: str) -> str:
    exact = Decimal(value.numerator) * 100 / Decimal(value.denominator)
    return str(exact.quantize(Decimal(1).scaleb(-decimals), rounding))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_what_a_script_prints_from_counts_is_possible(data):
    suite = data.draw(st.sampled_from([VL, MM_RLHF]))
    grouping = data.draw(st.sampled_from(list(GROUPINGS[suite])))
    sizes = GROUPINGS[suite][grouping]
    decimals = data.draw(st.integers(0, 3))
    rounding = data.draw(st.sampled_from([ROUND_HALF_UP, ROUND_DOWN]))
    counts = [data.draw(st.integers(0, n)) for n in sizes.values()]
    shares = [Fraction(k, n) for k, n in zip(counts, sizes.values(), strict=True)]
    overall = Fraction(sum(counts), sum(sizes.values()))
    last = (
        sum(shares) / 3
        if suite == VL
        else Fraction(data.draw(st.integers(0, BENCHMARKS[MM_RLHF].ids)), BENCHMARKS[MM_RLHF].ids)
    )
    benchmark, row = made(suite, [show(value, decimals, rounding) for value in (*shares, overall, last)], grouping)
    assert impossible(benchmark, row) is None


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 1000), min_size=4, max_size=4))
def test_verdicts_agree_with_enumeration(tenths):
    # MM-RLHF's categories cut to VL's shape would be slow to enumerate; 1-decimal VL values keep it short.
    values = [f"{tenth / 10:.1f}" for tenth in tenths]
    sizes = tuple(GROUPINGS[VL]["official"].values())
    macro = show(sum(map(Fraction, values[:3])) / 300, 1, ROUND_HALF_UP)
    expected = False
    for rounding in (ROUND_HALF_UP, ROUND_DOWN):
        options = [
            [k for k in range(n + 1) if show(Fraction(k, n), 1, rounding) == value]
            for n, value in zip(sizes, values[:3], strict=True)
        ]
        means = {show(sum(map(Fraction, values[:3])) / 300, 1, rounding)}
        for counts in product(*options):
            exact = sum(Fraction(k, n) for k, n in zip(counts, sizes, strict=True)) / 3
            means_now = means | {show(exact, 1, rounding)}
            expected |= show(Fraction(sum(counts), 1250), 1, rounding) == values[3] and macro in means_now
    assert (impossible(*made(VL, [*values, macro])) is None) == expected


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 100), st.integers(0, 200), st.integers(0, 100))
def test_enumeration_near_real_rows(a, b, c):
    """Like the previous test, with categories that are integer counts, so that possible rows occur."""
    counts = (a, 300 + b, 150 + c)
    sizes = tuple(GROUPINGS[VL]["official"].values())
    shares = [Fraction(k, n) for k, n in zip(counts, sizes, strict=True)]
    printed = [show(share, 2, ROUND_HALF_UP) for share in shares]
    macro = show(sum(shares) / 3, 2, ROUND_HALF_UP)
    right = sum(counts)
    for off in (0, 1):
        overall = show(Fraction(right + off, 1250), 2, ROUND_HALF_UP)
        assert (impossible(*made(VL, [*printed, overall, macro])) is None) == (off == 0)


# ---- other papers' rows, and the table of arXiv 2604.10966


def other(suite, model, part):
    """The benchmark, and its row of a model from another source."""
    benchmark = find_benchmark(suite)
    (row,) = [row for row in benchmark.published if row.model == model and part in row.source]
    return benchmark, row


@pytest.mark.parametrize(
    ("model", "part", "reason"),
    [
        ("Omni-RewardModel-BT", "Table 4", "the categories give 83.74 overall, not 76.3"),
        ("Omni-RewardModel-R1", "Table 4", "the categories give 79.58 overall, not 69.6"),
        ("UnifiedReward", "Table 4", "the categories give 71.24 overall, not 66.1"),
        ("LLaVA-Critic-8B", "Table 4", "the categories give 46.00 (575/1250) overall, not 41.2; macro 44.0 is not"),
        ("Omni-RewardModel-BT, a user's run", "issue 3", "61.5 is not k/318"),
    ],
)
def test_impossible_rows_of_omni_reward(model, part, reason):
    assert reason in impossible(*other(VL, model, part))


def test_the_corrected_row_is_possible():
    assert impossible(*other(VL, "Omni-RewardModel-BT, corrected", "issue 3")) is None
    benchmark, think = other(VL, "UnifiedReward-Think", "issue 79")
    assert impossible(benchmark, think) is None and "give 71.79" in think.note
    right = round(0.781 * 183) + round(0.7276 * 749) + round(0.66 * 318)
    assert f"{100 * right / 1250:.1f}" == "71.8"


SIX = {VL: "macro", MULTIMODAL: "overall", MM_RLHF: "acc", "videorewardbench": "overall", "mr2bench": "image"}


def test_the_table_of_six_benchmarks_is_in_each_of_them():
    """Its averages, typed from the README, are the means of the six numbers; 56.15 was printed 56.1."""
    printed = {
        "GPT-5": 69.5, "Claude-Sonnet-4.5": 67.7, "Gemini-2.5-Pro": 67.9, "InternVL3-8B": 57.8, "Qwen2.5-VL-7B": 59.9,
        "Qwen3-VL-4B": 63.5, "Qwen3-VL-32B": 66.9, "Molmo2-4B": 59.7, "InternVL3-78B": 65.1, "R1-Reward": 66.5,
        "MM-RLHF-Reward": 56.1, "LLaVA-Critic-7B": 49.2, "Skywork-VL-Reward": 63.0, "IXC-2.5-Reward": 61.4,
        "MR2-Molmo2-4B": 71.2, "MR2-Qwen3-VL-4B": 65.1,
    }  # fmt: skip
    values = {model: [] for model in printed}
    for suite, heading in SIX.items():
        rows = [row for row in find_benchmark(suite).published if "2604.10966" in row.source]
        assert [row.model for row in rows] == list(printed)
        for row in rows:
            assert (row.grouping, row.orders, row.rule, row.votes) == (NOT_STATED, NOT_STATED, NOT_STATED, None)
            assert heading in row.values
            values[row.model] += map(float, row.values.values())
    for model, numbers in values.items():
        assert len(numbers) == 6 and abs(sum(numbers) / 6 - printed[model]) < 0.0501


def test_impossible_numbers_in_it_are_reported():
    assert impossible(*other(MM_RLHF, "MM-RLHF-Reward", "2604.10966")).startswith("85.0 is not k/170")
    assert "cannot be right" in other(VL, "LLaVA-Critic-7B", "2604.10966")[1].note
    low = below_chance(*other("videorewardbench", "LLaVA-Critic-7B", "2604.10966"))
    assert low.startswith("14.7 is 28 standard deviations below a coin's 50: ")
    assert "39.0" in other("videorewardbench", "R1-Reward", "2604.10966")[1].note
    for suite in SIX:
        benchmark = find_benchmark(suite)
        rows = [row for row in benchmark.published if "2604.10966" in row.source]
        flagged = [row.model for row in rows if impossible(benchmark, row)]
        assert flagged == (["MM-RLHF-Reward"] if suite == MM_RLHF else [])


def test_a_lone_macro_is_not_a_count():
    benchmark, row = other(VL, "GPT-5", "2604.10966")
    assert row.values == {"macro": "75.0"}
    assert fits(benchmark, row) == {} and below_chance(benchmark, row) is None


@pytest.mark.parametrize(
    ("suite", "overall", "low"),
    [(VL, "43.0", False), (VL, "42.8", True), (MM_RLHF, "31", False), (MM_RLHF, "30", True), (VL, "57.2", False)],
)
def test_below_chance_is_five_standard_deviations(suite, overall, low):
    """Of 1,250 rows that is 7.07 points, of 170 rows 19.17."""
    benchmark = find_benchmark(suite)
    row = PublishedRow("made", {benchmark.heading("overall"): overall}, "test", NONE)
    assert (below_chance(benchmark, row) is not None) == low


def test_an_official_score_has_another_chance_level():
    assert below_chance(find_benchmark("mr2bench"), PublishedRow("made", {"overall": "10.0"}, "test")) is None
