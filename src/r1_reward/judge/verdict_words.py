"""The vocabulary of the grammar of comparative judgments, see :mod:`r1_reward.judge.verdict_grammar`."""

from __future__ import annotations


def words(text: str) -> frozenset[str]:
    """Return the words of a text as a set."""
    return frozenset(text.split())


# --- praise and blame ------------------------------------------------------------------------------------------------

BETTER = words("better best superior preferable preferred stronger strongest winner chosen favored favoured victorious")
WORSE = words("worse worst inferior weaker weakest poorer loser")
WINS = words(
    "wins win won outperforms outperform outperformed outperforming beats beat beating surpasses surpass surpassed"
    " surpassing prevails prevail excels outshines outshine outshone exceeds edges edging"
)
BEATEN = words("outperformed surpassed beaten outshone")
"""Praise before an object, blame before "by"."""
LOSES = words("loses underperforms underperform underperformed")
EDGE = words("edge advantage")
EVEN = words("good strong well")
"""A verdict in "not as ... as"."""
GOOD = words(
    "accurate correct comprehensive detailed helpful relevant informative complete concise thorough precise clear"
    " coherent specific appropriate useful reliable engaging insightful nuanced readable suitable logical organized"
    " structured faithful consistent effective in-depth practical actionable valuable robust rigorous efficient direct"
    " aligned convincing compelling persuasive natural well-structured well-organized understandable polished"
    " professional diverse vivid original varied transparent suited tailored factual grounded truthful credible safe"
    " creative satisfactory sound balanced cohesive accurately correctly clearly thoroughly effectively precisely"
    " directly closely comprehensively faithfully"
)
"""Praise after "more", blame after "less"."""
BAD = words(
    "vague generic misleading confusing limited superficial verbose repetitive inaccurate incorrect flawed wrong"
    " ambiguous convoluted shallow irrelevant unclear simplistic basic high-level redundant problematic erroneous"
)
MERITS = words(
    "detail details depth information context examples insight insights specifics accuracy clarity explanation"
)
"""Nouns that are praise after "more"."""
ERRORS = words("errors mistakes inaccuracies hallucinations issues problems flaws error mistake")
LEVELS = words("level degree quality accuracy clarity detail depth relevance standard amount understanding")
"""Nouns that can be higher or lower."""
SCORES = words("score scores rating ratings grade mark marks rank overall")
"""Nouns that make "higher" or "lower" a verdict."""
GRADED = words(
    "clearer closer safer deeper richer fuller sounder wiser tighter higher greater broader smoother neater stronger"
)
CORRECT = words("correct accurate right")
INCORRECT = words(
    "incorrect inaccurate wrong mistaken flawed incomplete irrelevant misleading erroneous unhelpful nonsensical"
)
FAILS = words("lacks lacked fails failed misses missed omits omitted ignores ignored misinterprets misunderstands")

# --- between a subject and its praise --------------------------------------------------------------------------------

BE = words(
    "is was are were be been being seems seem seemed appears appear appeared remains remained looks proves proved"
    " becomes would will should must can does did do has have had to as considered deemed judged rated regarded"
    " performs performed perform makes making made"
)
GIVES = words(
    "provides provided provide offers offered offer gives gave give demonstrates demonstrated presents presented"
    " contains contained includes included has have had shows showed delivers delivered receives received receive gets"
    " earns earned earning deserves deserved deserve scores scored achieves achieved goes takes displays exhibits"
    " maintains uses resulting warranting receiving providing offering giving having scoring demonstrating presenting"
    " achieving"
)
WANTS = words(
    "needs needed requires required tries tried aims attempts attempted wants wanted seeks pretends purports strives"
)
"""After these a comparison is a wish: "needs a more precise answer"."""
LIGHT = words(
    "a an the also still thus hence therefore overall indeed just far much even slight bit little fact by slightly"
    " clear so only now ultimately somewhat it its that this both very marginally again then own considerable"
    " significant noticeable most likely rather quite"
)
NOUNS = words("response answer choice option one candidate output assistant model solution explanation reply of two")
NOT = words("not never no nothing rarely hardly barely scarcely neither nor without")
BARELY = words("rarely hardly barely scarcely")
LEAVES_OPEN = words("necessarily significantly much substantially strictly always entirely particularly notably means")
"""After "not" (or "no") these deny a margin, not the preference."""
MAYBE = words("could might may cannot wrongly mistakenly falsely supposedly allegedly")
REPORTS = words("claims claimed says said states stated asserts argues argued suggests mentions thinks believes")
DOUBTS = words("think believe agree consider find feel say call claim argue")
ONCE = words("thought believed tempted expected hoped wish wished wanted")
"""An opinion that was held at first and then given up."""
CLAIMS = words("claim claims view idea notion impression argument assertion suggestion")
"""These and "that" introduce what somebody says."""
WRONG = words(
    "mistake wrong unfair false incorrect untrue misleading inaccurate disagree unreasonable strange absurd"
    " hard difficult impossible"
)
"""Before "to" or "that" these deny what follows."""
AT_FIRST = words("admittedly granted initially true sure")
"""Concessions at the start of a sentence."""
NO_RIVALS = words("nothing none no average expected before usual random most i it")
"""Better than one of these does not mean better than the other response."""
VERBS = BE | GIVES | WINS | LOSES | FAILS | MAYBE | {"falls", "fell"}
OPENS = VERBS | BETTER | WORSE | GRADED | {"more", "less", "most", "fewer", "lower", "it"}
"""A segment that begins with one of these is about the subject before it."""
COMPARED = words("better worse higher lower superior inferior")
AFTER_BETTER = NOUNS | words(
    "than as because at in for due with given on when to overall and or quality since here based"
)
"""Before these "better" is a verdict; before others ("better captures", "a better view") it is a comparison."""

# --- verdicts that name their response last --------------------------------------------------------------------------

PICKS = words(
    "choose chose choosing pick picked picking select selected selecting prefer recommend favor favour favors favours"
    " prefers endorse"
)
PICKS_WITH = {
    ("go", "with"), ("going", "with"), ("opt", "for"), ("vote", "for"), ("lean", "towards"), ("lean", "toward"),
    ("favor", "of"), ("favour", "of"), ("preference", "for"), ("preference", "to"), ("edge", "to"), ("nod", "to"),
    ("advantage", "to"), ("leaning", "towards"), ("leaning", "toward"), ("side", "with"), ("settle", "on"),
}  # fmt: skip
NAMES_IT = words("winner verdict choice preference decision pick edge advantage judgment judgement")
LINKS = words("is was are would be being must should seems remains goes : has been lies")
ON_THE_WAY = NOUNS | LIGHT | words("from provided given by for me overall")

# --- joining words ---------------------------------------------------------------------------------------------------

OBJECT = words(
    "than over to with by of in from unlike against versus vs for like on at about between compared beyond above"
    " outperforms outperform beats beat surpasses surpass exceeds outperformed surpassed"
)
"""A response after one of these is not the subject: another is compared with it, or the sentence is about its part."""
CONCEDES = words("although though albeit despite notwithstanding if unless whether except")
CONTRASTS = words("while whereas")
"""Concessions at the start of a sentence, contrasts after a first clause."""
TURNS = words("but however yet")
JOINS = TURNS | words("and so therefore because since which thus hence when where making resulting earning")
