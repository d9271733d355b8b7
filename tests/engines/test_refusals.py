"""Errors as servers write them: which parameter they are about, and whether the account is out of credit."""

from __future__ import annotations

import json

import pytest

from r1_reward.engines.dialect import Dialect
from r1_reward.engines.refusals import disguised_status, is_refusal, used_up

WHOLE = Dialect()


def openai(message, param=None, code=None, kind="invalid_request_error"):
    return json.dumps({"error": {"message": message, "type": kind, "param": param, "code": code}})


def pydantic(name, wrap=lambda detail: {"detail": detail}):
    place = {"type": "extra_forbidden", "loc": ["body", name], "msg": "Extra inputs are not permitted", "input": 0}
    return json.dumps(wrap([place]))


def google(*names):
    lines = [f'Invalid JSON payload received. Unknown name "{name}": Cannot find field.' for name in names]
    details = [{"@type": "type.googleapis.com/google.rpc.BadRequest"}]
    details[0]["fieldViolations"] = [{"description": line} for line in lines]
    error = {"code": 400, "message": "\n".join(lines), "status": "INVALID_ARGUMENT", "details": details}
    return json.dumps([{"error": error}])


ONLY_1 = (
    "Unsupported value: 'temperature' does not support {} with this model. Only the default (1) value is supported."
)
INSTEAD = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
LITELLM = (
    "litellm.UnsupportedParamsError: anthropic does not support parameters: ['seed', 'logprobs', 'top_logprobs'], for "
    "model=claude-sonnet-4-5. To drop these, set `litellm.drop_params=True` or for proxy:\n\n`litellm_settings:\n "
    "drop_params: true`\n. \n If you want to use these params dynamically send allowed_openai_params=['seed'] in your "
    "request."
)
GPT_5 = (
    "litellm.UnsupportedParamsError: gpt-5 models (including gpt-5-codex) don't support temperature=0.0. Only "
    "temperature=1 is supported. To drop unsupported params set `litellm.drop_params = True`"
)
BEDROCK = (
    'litellm.BadRequestError: BedrockException - {"message":"The model returned the following errors: {\\"type\\":'
    '\\"error\\",\\"error\\":{\\"type\\":\\"invalid_request_error\\",\\"message\\":\\"`temperature` is deprecated for '
    'this model.\\"}}"}'
)
OPENROUTER = {"message": "Provider returned error", "code": 400, "metadata": {"provider_name": "OpenAI"}}
OPENROUTER["metadata"]["raw"] = openai("Unsupported parameter: 'seed' is not supported with this model.", "seed")
OLD_VLLM = "[{'type': 'extra_forbidden', 'loc': ('body', 'top_logprobs'), 'msg': 'Extra inputs are not permitted'}]"
BOTH = "temperature and top_p cannot both be specified for this model. Please use only one."

REFUSALS = [
    # GPT-5 and the o-series
    (openai(ONLY_1.format(0), "temperature", "unsupported_value"), {"temperature": False}),
    (openai(ONLY_1.format(0.7)), {"temperature": False}),
    (openai("Unsupported parameter: 'temperature' is not supported with this model.", "temperature"),)
    + ({"temperature": False},),
    (openai(INSTEAD, "max_tokens", "unsupported_parameter"), {"limit": "max_completion_tokens"}),
    (openai("Unsupported parameter: 'top_p' is not supported with this model.", "top_p"), {"top_p": False}),
    (openai("You are not allowed to request logprobs from this model", "logprobs"), {"logprobs": False}),
    (openai("Unrecognized request argument supplied: seed"), {"seed": False}),
    # Mistral, in three generations of its errors; Azure AI
    (pydantic("seed"), {"seed": False}),
    (
        pydantic("seed", lambda detail: {"object": "error", "message": {"detail": detail}, "param": None}),
        {"seed": False},
    ),
    (
        json.dumps({"object": "error", "message": pydantic("logprobs"), "param": None, "code": "1000"}),
        {"logprobs": False},
    ),
    # Anthropic, plain and behind gateways
    (json.dumps({"type": "error", "error": {"type": "invalid_request_error", "message": BOTH}}), {"top_p": False}),
    (json.dumps({"error": {"message": "`temperature` is deprecated for this model."}}), {"temperature": False}),
    (json.dumps({"error": {"message": BEDROCK}}), {"temperature": False}),
    (openai(LITELLM), {"seed": False, "logprobs": False}),
    (openai(GPT_5), {"temperature": False}),
    (json.dumps({"error": OPENROUTER}), {"seed": False}),
    # Google
    (google("seed"), {"seed": False}),
    (google("frequency_penalty", "seed", "logprobs"), {"seed": False, "logprobs": False}),
    (json.dumps({"error": {"code": 400, "message": "Logprobs is not supported for this model."}}), {"logprobs": False}),
    # vLLM, TGI, xAI, Moonshot, Groq, a plain text
    (json.dumps({"object": "error", "message": OLD_VLLM, "code": 400}), {"logprobs": False}),
    (json.dumps({"object": "error", "message": "Cannot request more than 2 logprobs."}), {"alternatives": 2}),
    (json.dumps({"error": "Input validation error: `top_p` must be > 0.0 and < 1.0"}), {"top_p": False}),
    (json.dumps({"error": "Input validation error: `temperature` must be strictly positive"}), {"coldest": 0.01}),
    (
        json.dumps(
            {"code": "Client specified an invalid argument", "error": "Argument not supported on this model: seed"}
        ),
    )
    + ({"seed": False},),
    (openai("invalid temperature: only 1 is allowed for this model"), {"temperature": False}),
    (openai("property 'logprobs' is unsupported"), {"logprobs": False}),
    ("no top_p and no seed here", {"top_p": False, "seed": False}),
    (openai("Unrecognized argument: seed. Valid arguments: model, temperature, top_p, max_tokens"), {"seed": False}),
    (openai("seed is unknown\ntemperature: a number\ntop_p: a number"), {"seed": False}),
    (
        "unknown field `seed`, expected one of `model`, `messages`, `temperature`, `top_p`, `max_tokens`",
        {"seed": False},
    ),
    (json.dumps({"error": "unknown parameter seed; supported parameters are: temperature, top_p"}), {"seed": False}),
    (openai("The only supported value of temperature is 1"), {"temperature": False}),
    (openai("not allowed parameters: seed, top_p"), {"seed": False, "top_p": False}),
    # Zhipu, without a space between the name and the rest
    (
        json.dumps({"error": {"code": "1210", "message": "top_p参数非法。取值范围是(0.0,1.0)，不能等于0或1"}}),
        {"top_p": False},
    ),
    (json.dumps({"error": {"code": "1210", "message": "该模型不支持logprobs参数"}}), {"logprobs": False}),
    # Names as keys, and in lists
    (json.dumps({"errors": {"seed": ["Unknown field."]}}), {"seed": False}),
    (json.dumps({"seed": ["Unknown field."], "top_p": "Unknown field."}), {"seed": False, "top_p": False}),
    (
        json.dumps({"error": {"message": "Unsupported", "parameters": ["seed", "top_p"]}}),
        {"seed": False, "top_p": False},
    ),
]


@pytest.mark.parametrize(("error", "changes"), REFUSALS)
def test_what_is_refused_is_left_out_and_nothing_else(error, changes):
    sent = WHOLE.options(1, 0.7 if "0.7" in error else 0.0, 9) | {"top_p": 1.0}
    poorer = WHOLE.without(error, sent)
    assert poorer == WHOLE._replace(**changes)
    assert len(poorer.losses(WHOLE, 0.0)) == len(changes)
    left = poorer.options(1, 0.7, 9)
    assert not {name for name in changes if name != "alternatives"} & set(left)


@pytest.mark.parametrize(
    "error",
    [
        openai("This model's maximum context length is 8192 tokens. Reduce max_tokens.", "max_tokens"),
        openai(
            "'max_tokens' or 'max_completion_tokens' is too large: 1024. This model's maximum context length is 512"
        ),
        openai("max_tokens is too large: 99999. This model supports at most 16384 completion tokens.", "max_tokens"),
        json.dumps({"error": {"message": "max_tokens: 100000 > 8192, which is the maximum allowed"}}),
        openai("Invalid 'messages[0].content': the temperature in the text is odd.", "messages[0].content"),
        openai("The prompt is too long: it says temperature and seed"),
        json.dumps({"detail": [{"loc": ["body", "messages"], "msg": "bad", "input": "what 'temperature' and seed?"}]}),
        openai("Image could not be processed.\\n\\nSee the log"),
        '{"error": "half',
        "[" * 5000,
        "",
    ],
)
def test_an_error_about_something_else_changes_nothing(error):
    sent = WHOLE.options(1, 0.7, 9, 3)
    assert WHOLE.without(error, sent) == WHOLE


def test_a_dialect_gives_up_what_is_refused_step_by_step_until_nothing_is_left():
    dialect = WHOLE
    for error, left in [
        ("logprobs?", {"seed", "temperature", "max_tokens", "top_p", "logprobs", "top_logprobs"}),  # fewer alternatives
        ("logprobs?", {"seed", "temperature", "max_tokens", "top_p"}),
        (openai(INSTEAD, "max_tokens"), {"seed", "temperature", "max_completion_tokens", "top_p"}),
        (pydantic("top_p"), {"seed", "temperature", "max_completion_tokens"}),
        (pydantic("max_completion_tokens"), {"seed", "temperature"}),
        (pydantic("seed"), {"temperature"}),
        (pydantic("temperature"), set()),
        (pydantic("temperature"), set()),
    ]:
        dialect = dialect.without(error, dialect.options(1, 0.7, 9))
        assert set(dialect.options(1, 0.7, 9)) == left
    assert len(dialect.losses(WHOLE, 0.7)) == 5


def test_a_temperature_above_zero_is_as_near_to_greedy_as_a_server_goes():
    cold = WHOLE.without("`temperature` must be strictly positive", WHOLE.options(1, 0.0, 9))
    assert [cold.options(1, t, 9)["temperature"] for t in (0.0, 0.005, 0.7)] == [0.01, 0.01, 0.7]
    assert "nearly greedy" in cold.losses(WHOLE, 0.0)[0]
    gone = cold.without("`temperature` must be strictly positive", cold.options(1, 0.0, 9))
    assert "temperature" not in gone.options(1, 0.0, 9)


@pytest.mark.parametrize(
    "refusal",
    [
        "n must be 1 when using greedy sampling, got 4.",
        '{"error": {"message": "bad value", "param": "n"}}',
        "{'detail': \"'n' is not supported\"}",
        "Only one completion choice is allowed",
        "best_of must be 1 when using greedy sampling, got 4",
        "Input validation error: `seed` must not be set when `best_of` > 1",
        openai("Field 'n': Value must be between 1 <= value <= 2, but got 4"),
        openai("When n > 1, temperature must be greater than 0 to ensure diverse outputs. Got n=2, temperature=0"),
        openai("Multiple candidates is not enabled for this model"),
    ],
)
def test_several_completions_are_given_up_before_anything_else(refusal):
    assert WHOLE.without(refusal, WHOLE.options(1, 0.7, 9, 4)) == WHOLE._replace(several=False)
    assert WHOLE.without(refusal, WHOLE.options(1, 0.7, 9)).several, "one completion was asked for"
    assert WHOLE.options(1, 0.5, 9, 4) == {**WHOLE.options(1, 0.5, 9), "n": 4}


@pytest.mark.parametrize(("seed", "sent"), [(0, 0), (2**40 + 5, 5), (-1, 2**31 - 1), (2**31 - 1, 2**31 - 1)])
def test_seeds_fit_into_every_server(seed, sent):
    assert WHOLE.options(seed, 0.0, 9) == {
        "seed": sent, "temperature": 0.0, "max_tokens": 9, "logprobs": True, "top_logprobs": 5
    }  # fmt: skip


def test_concurrent_requests_learn_together():
    one, two = WHOLE._replace(seed=False, coldest=0.01), WHOLE._replace(limit="max_completion_tokens")
    assert one.joined(two) == two.joined(one)
    assert one.joined(two) == WHOLE._replace(seed=False, coldest=0.01, limit="max_completion_tokens")
    assert two.joined(WHOLE._replace(limit=None)).limit is None
    assert WHOLE.joined(WHOLE) == WHOLE


def test_what_is_lost_is_named():
    assert "not greedy" in WHOLE._replace(temperature=False).losses(WHOLE, 0.0)[0]
    assert "not the 0.7 requested" in WHOLE._replace(temperature=False).losses(WHOLE, 0.7)[0]
    assert "not reproducible" in WHOLE._replace(seed=False).losses(WHOLE, 1.0)[0]
    assert WHOLE.losses(WHOLE, 0.0) == []


# Alternatives at each token.

TOO_MANY_ALTERNATIVES = [
    openai("Requested sample logprobs of 5, which is greater than max allowed: 2 (parameter=logprobs, value=5)"),
    openai("Requested sample logprobs of 5, which is greater than max allowed: 4", "logprobs"),
    openai("Invalid value for 'top_logprobs': must be less than or equal to 3.", "top_logprobs"),
    openai("Invalid 'top_logprobs': integer above maximum value. Expected a value <= 2, but got 5.", "top_logprobs"),
    openai("Unsupported value: 'top_logprobs' does not support 5 with this model. Only values up to 3 are supported."),
    json.dumps({"error": "Input validation error: `top_n_tokens` must be >= 0 and <= 4. Given: 5"}),
    json.dumps({"detail": [{"loc": ["body", "top_logprobs"], "msg": "Input should be less than or equal to 2"}]}),
    json.dumps({"error": {"message": "Invalid value", "param": "top_logprobs"}}),
    json.dumps({"error": {"code": "1210", "message": "top_logprobs参数非法。取值范围是[0,3]"}}),
    "the number of top log probabilities is limited to 2",
    "top_logprobs: 5 is not allowed, at most 2",
    "The parameter top_logprobs is not supported beyond 3",
    "top_logprobs 5 not permitted, limit is 3",
    "This model does not support returning 5 top_logprobs",
    "top_logprobs: 5 not supported",
    "five top_logprobs are not supported, three are",
    "this deployment does not support that many top_logprobs",
    "top_logprobs?",
    "n_probs exceeds the maximum",
]


@pytest.mark.parametrize("refusal", TOO_MANY_ALTERNATIVES)
def test_two_alternatives_are_asked_for_before_none(refusal):
    fewer = WHOLE.without(refusal, WHOLE.options(1, 0.0, 9))
    assert fewer == WHOLE._replace(alternatives=2)
    assert fewer.options(1, 0.0, 9) == {**WHOLE.options(1, 0.0, 9), "top_logprobs": 2}
    (loss,) = fewer.losses(WHOLE, 0.0)
    assert "top_logprobs 5: 2 is sent instead" in loss and "2 most likely" in loss
    none = fewer.without(refusal, fewer.options(1, 0.0, 9))
    assert none == fewer._replace(logprobs=False)
    (loss,) = none.losses(WHOLE, 0.0)
    assert "estimated from vote counts" in loss
    assert WHOLE.joined(fewer) == fewer.joined(WHOLE) == fewer


@pytest.mark.parametrize(
    "refusal",
    [
        openai("Unrecognized request argument supplied: top_logprobs"),
        openai("'top_logprobs' is not supported with this model.", "top_logprobs", "unsupported_parameter"),
        openai("This model does not support logprobs"),
        openai("top_logprobs is not enabled on this deployment"),
        openai("o3-mini does not support top_logprobs (HTTP 400)"),
        openai("claude-sonnet-4-5 does not support logprobs and top_logprobs"),
        pydantic("top_logprobs"),
        google("top_logprobs"),
        json.dumps({"error": {"code": "1210", "message": "该模型不支持top_logprobs参数"}}),
    ],
)
def test_a_parameter_refused_at_any_value_is_not_sent_again(refusal):
    assert WHOLE.without(refusal, WHOLE.options(1, 0.0, 9)) == WHOLE._replace(logprobs=False)


# Credit.

QUOTA = "You exceeded your current quota, please check your plan and billing details."


def gemini(*quotas, message=QUOTA):
    violations = [{"quotaMetric": "generate_content_free_tier_requests", "quotaId": quota} for quota in quotas]
    details = [{"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": violations}]
    error = {"code": 429, "message": message, "status": "RESOURCE_EXHAUSTED", "details": details}
    return json.dumps([{"error": error}])


MINUTE, DAY = (
    "GenerateRequestsPerMinutePerProjectPerModel-FreeTier",
    "GenerateRequestsPerDayPerProjectPerModel-FreeTier",
)


@pytest.mark.parametrize(
    ("status", "error", "what"),
    [
        (429, openai(QUOTA, code="insufficient_quota", kind="insufficient_quota"), "credit"),
        (429, openai(QUOTA, kind="insufficient_quota"), "credit"),
        (429, openai("Billing hard limit has been reached", code="billing_hard_limit_reached"), "credit"),
        (400, openai("Billing hard limit has been reached", code="billing_hard_limit_reached"), "credit"),
        (
            429,
            openai("Your account is not active, please check your billing details.", code="billing_not_active"),
            "credit",
        ),
        (
            400,
            json.dumps({"error": {"message": "Your credit balance is too low to access the Anthropic API."}}),
            "credit",
        ),
        (402, json.dumps({"error": {"message": "Insufficient credits. Add more using ...", "code": 402}}), "credit"),
        (402, json.dumps({"error": {"message": "Insufficient Balance", "type": "unknown_error"}}), "credit"),
        (402, "", "credit"),
        (429, openai("Your account is suspended, please check ...", kind="exceeded_current_quota_error"), "credit"),
        (403, openai("the quota of the user is not enough", code="insufficient_user_quota"), "credit"),
        (
            400,
            openai("Budget has been exceeded! Current cost: 10.0, Max budget: 10.0", kind="budget_exceeded"),
            "credit",
        ),
        (429, openai("Your team has used all available credits or reached its monthly spending limit."), "credit"),
        (
            400,
            openai("You have reached your specified API usage limits. You will regain access on 2026-12-01."),
            "credit",
        ),
        (403, json.dumps({"error": {"message": "Your account does not have enough credits"}}), "credit"),
        (403, json.dumps({"code": 30001, "message": "Sorry, your account balance is insufficient"}), "credit"),
        (429, json.dumps({"error": {"message": "Account balance is too low"}}), "credit"),
        (403, json.dumps({"error": {"code": "AccountOverdueError", "message": "An overdue balance."}}), "credit"),
        (403, json.dumps({"error": {"message": "该令牌额度已用尽"}}), "credit"),
        (401, json.dumps({"error": {"message": "Insufficient balance"}}), "credit"),
        (
            412,
            json.dumps({"error": {"message": "Account suspended, for reaching the monthly spending limit"}}),
            "credit",
        ),
        (403, json.dumps({"error": {"message": "Key limit exceeded (monthly limit)."}}), "credit"),
        (403, json.dumps({"error": {"message": "This API method requires billing to be enabled."}}), "credit"),
        (403, json.dumps({"error": {"message": "Out of call volume quota. It is replenished in 5 days"}}), "credit"),
        (429, gemini(message="Your prepayment credits are depleted."), "credit"),
        (429, json.dumps({"error": {"message": "You have exceeded your monthly quota."}}), "month"),
        (429, json.dumps({"message": "A Trial key is limited to 1000 API calls / month."}), "month"),
        (429, gemini(DAY), "daily"),
        (429, gemini(MINUTE, DAY), "daily"),
        (429, gemini(message=f"{QUOTA}\n* Quota exceeded for metric: free_tier_requests, limit: 0"), "credit"),
        (429, json.dumps({"error": {"message": json.dumps({"error": json.loads(gemini(DAY))[0]["error"]})}}), "daily"),
        (429, openai("Rate limit reached for m on tokens per day (TPD): Limit 500000. Try again in 7m12s."), "daily"),
        (429, json.dumps({"error": {"message": "Rate limit exceeded: free-models-per-day. Add 10 credits"}}), "daily"),
    ],
)
def test_what_ends_a_run(status, error, what):
    assert what in used_up(status, error)
    assert not is_refusal(status, error)


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (429, openai("Rate limit reached for gpt-4o on tokens per min (TPM): Limit 30000, Used 29000.")),
        (
            429,
            openai("Rate limit reached for gpt-4o on requests per min (RPM): Limit 3. Add a payment method: billing"),
        ),
        (429, gemini(MINUTE)),
        (429, gemini()),
        (429, json.dumps({"error": {"message": "Resource has been exhausted (e.g. check quota).", "status": "x"}})),
        (429, "Too Many Requests"),
        (429, "limits: 10 per minute, 1000 per day"),
        (429, json.dumps({"message": "A Trial key is limited to 10 API calls / minute."})),
        (429, json.dumps({"error": {"message": "Allocated quota exceeded, please increase your quota limit."}})),
        (401, openai("Incorrect API key provided: sk-1. You can find yours in the billing settings.")),
        (400, openai("The image of a credit balance could not be read.")),
        (503, openai("insufficient_quota of GPUs")),
        (400, json.dumps({"detail": [{"loc": ["body", "messages"], "input": "is the credit balance too low?"}]})),
        (400, openai("This model does not support images.")),
    ],
)
def test_what_passes_or_concerns_one_request(status, error):
    assert used_up(status, error) == ""


def test_which_errors_may_be_about_parameters():
    assert [is_refusal(code, "seed") for code in (400, 403, 404, 422)] == [True] * 4
    assert [is_refusal(code, "seed") for code in (401, 408, 409, 429, 500, 503)] == [False] * 6
    assert is_refusal(500, '{"error":{"code":500,"message":"Unsupported param: logprobs","type":"server_error"}}')
    assert not is_refusal(500, '{"error":{"code":500,"message":"image input is not supported","type":"server_error"}}')


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"error": {"message": "Insufficient credits", "code": 402}}, 402),
        ({"error": {"message": "slow down", "code": "429"}}, 429),
        ({"error": "Input validation error: `temperature` must be strictly positive", "error_type": "validation"}, 422),
        ([{"error": {"message": "bad", "code": 400}}], 400),
        ({"error": {"message": "odd", "code": "invalid_value"}}, None),
        ({"error": {"message": "x", "code": 200}}, None),
        ({"error": None, "choices": []}, None),
        ({"choices": [{}], "error": {"code": 400}}, None),
        (7, None),
    ],
)
def test_an_error_in_a_200(body, status):
    assert disguised_status(json.dumps(body).encode()) == status


def test_half_an_error_in_a_200_is_not_an_error():
    assert disguised_status(b'{"error": {"code": 4') is None
