"""The engine against a plain loop of full forward passes, and its promises about seeds, resuming and ends.

Also which precision is chosen for whom; how fast each is, is the processor's affair.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from freeprm.assets import solver_path
from freeprm.engines.base import Request, Sampled, SamplingParams
from freeprm.engines.hf import HFEngine
from freeprm.engines.hf import engine as engine_module
from freeprm.engines.hf.drawing import uniforms
from freeprm.errors import ConfigError, FreePRMError, ModelError
from freeprm.io.plugins import load
from freeprm.models.encoding import encode
from freeprm.models.loading import Backbone, load_backbone
from freeprm.models.reference_logprobs import noted_of
from freeprm.types import Rollout
from rounding import near

SaveTiny = Callable[..., Path]
PROMPTS = ("ab", "how many apples are there?", "a b c", "ab c d")
PARAMS = SamplingParams(temperature=1.0, max_new_tokens=20, seed=3)
ARCHITECTURES: list[tuple[str, dict[str, Any]]] = [
    ("LlamaConfig", {}),
    ("Qwen2Config", {}),
    ("MistralConfig", {"sliding_window": None}),
    ("MistralConfig", {"sliding_window": 8}),
    ("GPT2Config", {}),
]


def requests(n: int, prompts: Sequence[str] = PROMPTS) -> list[Request]:
    return [Request(problem_id=prompt, prompt=prompt, sample_idxs=tuple(range(n))) for prompt in prompts]


def draw_all(
    engine: HFEngine, asked: Sequence[Request], params: SamplingParams = PARAMS
) -> dict[tuple[str, int], Sampled]:
    found = list(engine.sample(asked, params=params))
    by_key = {(sampled.problem_id, sampled.sample_idx): sampled for sampled in found}
    assert len(by_key) == len(found), "a sample was given twice"
    return by_key


@torch.no_grad()
def plain_loop(backbone: Backbone, prompt: str, sample_idx: int, params: SamplingParams) -> tuple[int, ...]:
    """One full forward pass a token, one row, no cache; inverse CDF in float64. End of sequence is id 0."""
    rollout = Rollout(problem_id="", sample_idx=0, prompt=prompt, response="", truncated=True)
    ids = list(encode(backbone.tokenizer, [rollout])[0].ids)
    start = len(ids)
    numbers = uniforms(prompt, sample_idx=sample_idx, seed=params.seed, count=params.max_new_tokens)
    for number in numbers:
        logits = backbone.model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].double().numpy()
        if params.temperature == 0:
            token = int(logits.argmax())
        else:
            weights = np.exp((logits - logits.max()) / params.temperature)
            token = int((weights.cumsum() <= number * weights.sum()).sum())
        ids.append(token)
        if token == 0:
            break
    return tuple(ids[start:])


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize(("config", "options"), ARCHITECTURES)
def test_engine_draws_what_a_plain_loop_draws(
    save_tiny: SaveTiny, config: str, options: dict[str, Any], temperature: float
):
    params = replace(PARAMS, temperature=temperature)
    engine = HFEngine(model=str(save_tiny(config, **options)), max_rows=6)
    backbone = load_backbone(engine.model)
    found = draw_all(engine, requests(3), params)
    assert len(found) == 12
    for (prompt, sample_idx), sampled in found.items():
        assert sampled.token_ids == plain_loop(backbone, prompt, sample_idx, params)
    assert {sampled.stop_reason for sampled in found.values()} <= {"end", "length"}


def test_some_samples_end_and_some_are_cut(save_tiny: SaveTiny):
    found = draw_all(HFEngine(model=str(save_tiny())), requests(16))
    for sampled in found.values():
        ended = sampled.token_ids[-1] == 0
        assert sampled.stop_reason == ("end" if ended else "length")
        assert ended or sampled.n_generated_tokens == 20
        assert "</s>" not in sampled.text
        assert len(sampled.text) >= sampled.n_generated_tokens - 1  # letters, and the names of special tokens
    assert {sampled.truncated for sampled in found.values()} == {True, False}


def test_a_sample_depends_on_neither_batch_nor_company(save_tiny: SaveTiny):
    folder = str(save_tiny())
    together = draw_all(HFEngine(model=folder), requests(8))
    for engine, asked in (
        (HFEngine(model=folder, max_rows=3), requests(8)),
        (HFEngine(model=folder), requests(2)),
        (HFEngine(model=folder), requests(8, PROMPTS[::-1])),
        (HFEngine(model=folder), [replace(requests(8)[1], sample_idxs=(5,))]),
    ):
        for key, sampled in draw_all(engine, asked).items():
            assert sampled == together[key]


def test_samples_of_a_problem_differ_and_another_seed_draws_others(save_tiny: SaveTiny):
    engine = HFEngine(model=str(save_tiny()))
    first = draw_all(engine, requests(4))
    assert len({sampled.token_ids for sampled in first.values()}) == len(first)
    second = draw_all(engine, requests(4), replace(PARAMS, seed=4))
    assert all(first[key].token_ids != second[key].token_ids for key in first)


def test_what_is_done_is_not_given_again_and_the_rest_is_the_same_to_the_bit(save_tiny: SaveTiny):
    engine = HFEngine(model=str(save_tiny()), max_rows=4)
    whole = draw_all(engine, requests(4))
    done = {"ab": frozenset({0, 1, 2, 3}), "a b c": frozenset({2})}
    rest = draw_all(engine, [replace(item, done=done.get(item.problem_id, frozenset())) for item in requests(4)])
    assert rest == {key: sampled for key, sampled in whole.items() if key[1] not in done.get(key[0], ())}


@pytest.mark.slow
def test_workers_draw_the_same_and_are_gone_afterwards(save_tiny: SaveTiny):
    folder = str(save_tiny())
    alone = draw_all(HFEngine(model=folder, workers=1, max_rows=4), requests(4))
    assert draw_all(HFEngine(model=folder, workers=2, max_rows=4), requests(4)) == alone


def test_a_response_ends_before_its_stop_string(save_tiny: SaveTiny):
    engine = HFEngine(model=str(save_tiny()))
    free = draw_all(engine, requests(8))
    stopped = draw_all(engine, requests(8), replace(PARAMS, stop=("e", "qu")))
    for key, sampled in stopped.items():
        cuts = [cut for stop in ("e", "qu") if (cut := free[key].text.find(stop)) >= 0]
        assert sampled.text == (free[key].text[: min(cuts)] if cuts else free[key].text)
        assert (sampled.stop_reason == "stop") == bool(cuts)
        assert sampled.token_ids == free[key].token_ids[: sampled.n_generated_tokens]
    assert {sampled.stop_reason for sampled in stopped.values()} >= {"stop"}


def test_a_response_is_cut_where_the_context_is_full(save_tiny: SaveTiny):
    engine = HFEngine(model=str(save_tiny(max_position_embeddings=32)))
    found = draw_all(engine, requests(6), replace(PARAMS, max_new_tokens=40))
    for sampled in found.values():
        assert sampled.n_prompt_tokens + sampled.n_generated_tokens <= 32
        full = sampled.n_prompt_tokens + sampled.n_generated_tokens == 32
        assert sampled.stop_reason in ({"context", "end"} if full else {"end"})
    assert "context" in {sampled.stop_reason for sampled in found.values()}


def test_a_prompt_that_fills_the_context_is_refused_by_name(save_tiny: SaveTiny):
    engine = HFEngine(model=str(save_tiny(max_position_embeddings=16)))
    with pytest.raises(ModelError, match=r"'how many apples are there\?'.* 29 tokens.* holds 16"):
        draw_all(engine, requests(1))


def test_a_model_without_a_key_value_cache_is_refused(save_tiny: SaveTiny):
    engine = HFEngine(model=str(save_tiny("MambaConfig")))
    with pytest.raises(ModelError, match="keeps no key-value cache"):
        draw_all(engine, requests(1))


@pytest.mark.parametrize("pad", [None, "</s>", "<user>"])
def test_pad_token_and_template_change_nothing_but_the_prompt(save_tiny: SaveTiny, pad: str | None):
    engine = HFEngine(model=str(save_tiny(chat=False, pad=pad)))
    backbone = load_backbone(engine.model)
    for (prompt, sample_idx), sampled in draw_all(engine, requests(2)).items():
        assert sampled.n_prompt_tokens == len(prompt) + 1  # the line break behind a plain prompt
        assert sampled.token_ids == plain_loop(backbone, prompt, sample_idx, PARAMS)


def test_a_real_model_with_a_beginning_of_sequence_token_continues_its_story(stories: Path):
    engine = HFEngine(model=str(stories))
    params = SamplingParams(temperature=0.0, max_new_tokens=24)
    (sampled,) = engine.sample(
        [Request(problem_id="s", prompt="Once upon a time, there was a little girl", sample_idxs=(0,))], params=params
    )
    backbone = load_backbone(str(stories))
    ids = backbone.tokenizer("Once upon a time, there was a little girl\n")["input_ids"]
    assert ids[0] == backbone.tokenizer.bos_token_id
    expected = backbone.model.generate(torch.tensor([ids]), max_new_tokens=24, do_sample=False)[0, len(ids) :]
    assert sampled.n_prompt_tokens == len(ids)
    assert list(sampled.token_ids) == expected.tolist()


def test_the_engine_knows_what_it_draws_from(save_tiny: SaveTiny):
    engine = HFEngine(model=str(save_tiny()))
    identity = engine.identity()
    assert len(identity["weights_sha256"]) == 64
    assert identity["dtype"] == "auto"
    assert engine.shape().n_layers == 2


def test_the_engine_says_which_day_its_template_tells(save_tiny: SaveTiny):
    folder = save_tiny()
    assert "template_date" not in HFEngine(model=str(folder)).identity()
    (folder / "chat_template.jinja").write_text("{{ strftime_now('%d') }}")
    by_default, chosen = (HFEngine(model=str(folder), template_date=day).identity() for day in (None, "2025-01-12"))
    assert (by_default["template_date"], chosen["template_date"]) == ("2024-07-26", "2025-01-12")
    assert by_default["template_sha256"] != chosen["template_sha256"]


def test_the_engine_is_found_by_name_and_refuses_bad_options():
    assert load("engines", "hf") is HFEngine
    with pytest.raises(ConfigError, match="workers: is 0"):
        HFEngine(model="x", workers=0)


def test_the_shipped_solver_answers_in_steps():
    try:
        solver_path("base")
    except FreePRMError as error:
        pytest.skip(str(error))
    prompt = "Ivy has 48 books. Kim has 8 fewer books than Ivy. Ron has 12 more books than Kim. "
    prompt += "How many books does Ron have?"
    request = Request(problem_id="p", prompt=prompt, sample_idxs=(0,))
    (sampled,) = HFEngine(model="solver:base").sample([request], params=SamplingParams(temperature=0.0))
    assert sampled.text.startswith("Step 1: ")
    assert "\nThe answer is " in sampled.text
    assert sampled.stop_reason == "end"


def test_no_response_outgrows_the_positions_that_it_was_drawn_with(save_tiny: SaveTiny):
    limit = 24
    rope = {
        "rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 4, "long_factor": [4.0, 8.0, 16.0, 32.0],
        "original_max_position_embeddings": limit,
    }  # fmt: skip
    engine = HFEngine(model=str(save_tiny("LlamaConfig", rope_parameters=rope)), max_rows=8)
    params = replace(PARAMS, logprobs=True)
    with pytest.warns(UserWarning, match=r"after 3 of 4 prompts a response is ended at 24 tokens with its prompt"):
        drawn = draw_all(engine, requests(2), params)
    model = load_backbone(engine.model).model
    for (prompt, _), sampled in drawn.items():
        n_tokens = sampled.n_prompt_tokens + len(sampled.token_ids)
        assert sampled.n_prompt_tokens > limit or n_tokens <= limit
        if n_tokens == limit:
            assert sampled.stop_reason in ("end", "context")
        asked = Rollout(problem_id="", sample_idx=0, prompt=prompt, response="", truncated=True)
        prompt_ids = encode(engine._backbone.tokenizer, [asked])[0].ids.tolist()
        ids = torch.tensor([[*prompt_ids, *sampled.token_ids]])
        logps = model(ids).logits[0].log_softmax(-1)[:-1].gather(1, ids[0, 1:, None])[len(prompt_ids) - 1 :, 0]
        assert sampled.token_logprobs == pytest.approx(logps.tolist(), abs=1e-4)
    assert any(sampled.n_prompt_tokens > limit for sampled in drawn.values())
    assert any(sampled.stop_reason == "context" for sampled in drawn.values())


@pytest.mark.parametrize(
    ("config", "options", "temperature", "top_p"),
    [
        *((*architecture, 0.5, 0.6) for architecture in ARCHITECTURES),
        *((*ARCHITECTURES[0], temperature, 1.0) for temperature in (0.0, 1.3)),
    ],
)
def test_noted_log_probabilities_are_the_models_own_whatever_was_drawn_how(
    save_tiny: SaveTiny, config: str, options: dict[str, Any], temperature: float, top_p: float
):
    engine = HFEngine(model=str(save_tiny(config, **options)), max_rows=6)
    backbone = load_backbone(engine.model)
    params = replace(PARAMS, temperature=temperature, top_p=top_p, logprobs=True)
    for (prompt, _), sampled in draw_all(engine, requests(2), params).items():
        asked = Rollout(problem_id="", sample_idx=0, prompt=prompt, response="", truncated=True)
        prompt_ids = encode(backbone.tokenizer, [asked])[0].ids
        ids = torch.tensor([[*prompt_ids.tolist(), *sampled.token_ids]])
        logps = backbone.model(ids).logits[0].log_softmax(-1)[:-1].gather(1, ids[0, 1:, None])[len(prompt_ids) - 1 :, 0]
        assert sampled.token_logprobs == near(logps.tolist())
        assert sampled.logprobs_of == noted_of(engine.key(), prompt_ids.tolist())
    assert all(sampled.token_logprobs is None for sampled in draw_all(engine, requests(1)).values())


def saved(save_tiny: SaveTiny, dtype: torch.dtype) -> str:
    from transformers import AutoModelForCausalLM

    folder = save_tiny()
    AutoModelForCausalLM.from_pretrained(folder).to(dtype).save_pretrained(folder)
    return str(folder)


def test_a_checkpoint_in_float32_stays_what_it_is(save_tiny: SaveTiny):
    engine = HFEngine(model=str(save_tiny()), device="cpu")
    choice = engine.choose(SamplingParams())
    assert choice == {"dtype": "float32", "why": "the checkpoint's own"}
    assert engine.chosen(choice).dtype == "float32"


def test_what_is_asked_for_is_not_tried(save_tiny: SaveTiny):
    model = saved(save_tiny, torch.bfloat16)
    assert HFEngine(model=model, dtype="float16").choose(SamplingParams())["dtype"] == "float16"


@pytest.mark.parametrize(("faster", "chosen"), [(3.0, "bfloat16"), (1.05, "float32"), (0.2, "float32")])
def test_a_checkpoint_of_16_bits_is_tried_in_both_precisions(
    save_tiny: SaveTiny, monkeypatch: pytest.MonkeyPatch, faster: float, chosen: str
):
    shapes = []

    def trial(n_out: int, n_in: int, dtypes: tuple[torch.dtype, ...]) -> dict[torch.dtype, float]:
        shapes.append((n_out, n_in))
        return {torch.float32: 1.0, torch.bfloat16: 1 / faster}

    monkeypatch.setattr(engine_module, "_trial", trial)
    engine = HFEngine(model=saved(save_tiny, torch.bfloat16), device="cpu")
    choice = engine.choose(SamplingParams())
    assert choice["dtype"] == chosen
    # Two layers of q, o (32 x 32), k, v (16 x 32), gate, up (48 x 32), down (32 x 48), and a head of 33 words.
    assert sorted(shapes) == [(16, 32), (32, 32), (32, 48), (33, 32), (48, 32)]
    assert choice["seconds"]["float32"] == 15.0
    assert f"draws in {chosen}" in choice["said"]


def test_noted_log_probabilities_are_in_the_checkpoints_own_precision(save_tiny: SaveTiny):
    engine = HFEngine(model=saved(save_tiny, torch.bfloat16), device="cpu")
    assert engine.choose(SamplingParams(logprobs=True))["dtype"] == "bfloat16"


def test_a_trial_takes_the_time_of_the_whole_matrix(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(engine_module, "_PART", 64)
    found = engine_module._trial(16, 8, (torch.float32, torch.bfloat16))  # 8 of 16 rows
    assert set(found) == {torch.float32, torch.bfloat16}
    assert all(0 < seconds < 60 for seconds in found.values())
