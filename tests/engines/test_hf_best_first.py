"""Samples written piece by piece against the engine that writes them at once.

And best-of-N found while samples are written, against drawing all, scoring all and taking the best.
"""

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from transformers import MambaConfig, MambaForCausalLM

import tiny
from drawn import same_draw
from freeprm.core.voting import best_of_n
from freeprm.datasets._reading import load_problems
from freeprm.engines.base import Request, Sampled, SamplingParams
from freeprm.engines.hf import HFEngine
from freeprm.engines.hf.best_first import BestOfSamples
from freeprm.engines.hf.judging import Judge
from freeprm.engines.hf.writing import Draft, Writer
from freeprm.errors import ConfigError, ModelError
from freeprm.models.incremental import StepwiseRewards
from freeprm.models.loading import load_backbone
from freeprm.models.reward_config import Reference, RewardConfig
from freeprm.scorers.implicit import ImplicitPRM
from freeprm.types import Rollout
from rounding import near

PARAMS = SamplingParams(temperature=1.0, max_new_tokens=70, seed=3)
REQUESTS = [
    Request(problem_id=str(index), prompt=prompt, sample_idxs=(0, 1, 5))
    for index, prompt in enumerate(("the sum of 3 and 4?", "12", "Step 1: we add 3 and 4, which is 7."))
]


def in_pieces(engine: HFEngine, params: SamplingParams, *, seed: int = 0) -> tuple[Writer, list[Draft]]:
    """All samples, some of which are written on by up to 40 tokens each round."""
    rng = random.Random(seed)
    writer = Writer(engine._backbone, params=params)
    drafts = [draft for wanted in engine._encoded(REQUESTS) for draft in writer.open(wanted)]
    while unfinished := [draft for draft in drafts if draft.stop_reason is None]:
        chosen = rng.sample(unfinished, rng.randint(1, len(unfinished)))
        stops = {id(draft): len(draft.ids) + rng.randint(1, 40) for draft in chosen}
        writer.write(chosen, lambda draft, stops=stops: len(draft.ids) >= stops[id(draft)])
        assert all(len(draft.ids) == stops[id(draft)] or draft.stop_reason for draft in chosen)
    return writer, drafts


@pytest.mark.parametrize(
    ("architecture", "params"),
    [
        *((architecture, PARAMS) for architecture in (*tiny.ARCHITECTURES, "longrope")),
        ("llama", replace(PARAMS, temperature=0.0)),
        ("llama", replace(PARAMS, top_p=0.8)),
    ],
)
def test_pieces_are_the_samples_drawn_at_once(tmp_path: Path, architecture, params):
    engine = HFEngine(model=str(tiny.save(tmp_path, architecture=architecture)))
    whole = {
        (one.problem_id, one.sample_idx): one for one in engine.sample(REQUESTS, params=replace(params, logprobs=True))
    }
    writer, drafts = in_pieces(engine, params)
    for draft in drafts:
        one = whole[draft.wanted.problem_id, draft.sample_idx]
        if same_draw(engine._backbone, draft, one, params):
            assert draft.stop_reason == one.stop_reason
            assert writer.text(draft) == one.text
            assert draft.logprobs == near(one.token_logprobs)


def test_a_stop_string_ends_a_sample_and_no_part_of_it_is_settled(tmp_path: Path):
    engine = HFEngine(model=str(tiny.save(tmp_path)))
    plain = next(iter(engine.sample(REQUESTS[:1], params=PARAMS)))
    stop = plain.text[4:7]
    params = replace(PARAMS, stop=(stop,), max_new_tokens=30)
    whole = {(one.problem_id, one.sample_idx): one for one in engine.sample(REQUESTS, params=params)}
    writer = Writer(engine._backbone, params=params)
    for wanted in engine._encoded(REQUESTS):
        for draft in writer.open(wanted):
            settled = []
            while draft.stop_reason is None:
                writer.write([draft], lambda draft: True)
                settled.append(writer.settled_text(draft) if draft.stop_reason is None else "")
            one = whole[draft.wanted.problem_id, draft.sample_idx]
            assert (writer.text(draft), draft.stop_reason) == (one.text, one.stop_reason)
            assert all(one.text.startswith(text) for text in settled)
    assert "stop" in {one.stop_reason for one in whole.values()}


def test_slots_of_closed_samples_are_used_again(tmp_path: Path):
    engine = HFEngine(model=str(tiny.save(tmp_path)))
    writer = Writer(engine._backbone, params=PARAMS)
    sizes = []
    for _ in range(3):
        for wanted in engine._encoded(REQUESTS):
            drafts = writer.open(wanted)
            writer.write(drafts, lambda draft: len(draft.ids) >= 20)
            writer.close(drafts)
        sizes.append((len(writer._slots._layers[0][0]), len(writer._slots._free)))
    assert len(set(sizes)) == 1
    assert sizes[0][1] == sizes[0][0] - 1  # all but the padding's


def test_a_prompt_of_one_token_and_a_full_context_are_ends_like_others(tmp_path: Path):
    engine = HFEngine(model=str(tiny.save(tmp_path)))
    params = replace(PARAMS, max_new_tokens=1000)
    request = Request(problem_id="p", prompt="", sample_idxs=(0, 1, 2, 3))  # a line break is left of it
    whole = {one.sample_idx: one for one in engine.sample([request], params=params)}
    writer = Writer(engine._backbone, params=params)
    (wanted,) = engine._encoded([request])
    assert len(wanted.ids) == 1
    drafts = writer.open(wanted)
    writer.write(drafts, lambda draft: len(draft.ids) % 50 == 0)
    writer.write([draft for draft in drafts if draft.stop_reason is None], lambda draft: False)
    for draft in drafts:
        if same_draw(engine._backbone, draft, whole[draft.sample_idx], params):
            assert draft.stop_reason == whole[draft.sample_idx].stop_reason
    assert {draft.stop_reason for draft in drafts} <= {"context", "end"}


def test_a_model_without_keys_and_values_is_refused(tmp_path: Path):
    backbone = load_backbone(str(tiny.save(tmp_path)))
    mamba = MambaForCausalLM(MambaConfig(vocab_size=300, hidden_size=8, num_hidden_layers=1, state_size=4))
    with pytest.raises(ModelError, match=r"a MambaForCausalLM, .*cannot be written piece by piece"):
        Writer(replace(backbone, model=mamba), params=PARAMS)


def test_beginning_with_nothing_asked_for_draws_nothing(tmp_path: Path):
    engine = HFEngine(model=str(tiny.save(tmp_path)))
    writer = Writer(engine._backbone, params=PARAMS)
    drafts = writer.open(engine._encoded(REQUESTS)[0])
    writer.write([], lambda draft: True)
    assert [draft.ids for draft in drafts] == [[], [], []]


NEAR = 1e-4
"""Scores that differ by less may be ranked either way; see docs/early-stopping.md."""


def models(folder: Path) -> tuple[Path, Path]:
    """Two tiny random models of different shapes, whose tokenizer seldom reads text as drawn."""
    return tiny.save(folder / "draws"), tiny.save(folder / "policy", architecture="qwen2", seed=1)


def reward_model(policy: Path | str, reference: Path | str) -> ImplicitPRM:
    config = RewardConfig(beta=0.5, base="b", objective="ce", reference=Reference(source="b", weights_sha256="0" * 64))
    return ImplicitPRM(config, policy=load_backbone(str(policy)), reference=load_backbone(str(reference)))


def judge_of(prm: ImplicitPRM, *, splitter: str, reward: str, reference_draws: bool, max_length: int = 0) -> Judge:
    return Judge(
        rewards=StepwiseRewards(policy=prm.policy, reference=prm.reference, reward=reward, beta=prm.config.beta),
        tokenizer=prm.policy.tokenizer, max_length=max_length or prm.policy.max_length, splitter=splitter,
        reference_draws=reference_draws,
    )  # fmt: skip


def asked(n_problems: int, n: int, seed: int) -> list[Request]:
    """Problems of random letters."""
    rng = random.Random(seed)
    prompts = ["".join(rng.choices("abcdefgh ", k=rng.randint(1, 9))) for _ in range(n_problems)]
    return [
        Request(problem_id=f"{place}", prompt=prompt, sample_idxs=tuple(range(n)))
        for place, prompt in enumerate(prompts)
    ]


def scores_of(
    prm: ImplicitPRM, request: Request, samples: Sequence[Sampled], *, splitter: str, reward: str
) -> dict[int, float]:
    """By place among the samples, the lowest step reward of each that can be scored, from a complete pass."""
    rollouts = [
        Rollout(
            problem_id=one.problem_id, sample_idx=one.sample_idx, prompt=request.prompt, response=one.text,
            truncated=one.truncated,
        )
        for one in samples
    ]  # fmt: skip
    logprobs, _ = prm.logprobs(rollouts)
    return {
        place: min(prm.read(item, rollouts[place].response, splitter=splitter, reward=reward).step_rewards)
        for place, item in logprobs.items()
    }


def compare(
    engine: HFEngine,
    prm: ImplicitPRM,
    requests: Sequence[Request],
    params: SamplingParams,
    *,
    splitter: str,
    reward: str = "with-reference",
    batch: int = 1,
    reference_draws: bool = False,
) -> tuple[int, float]:
    """Check every problem.

    Returns:
        How many were left out because rounding drew another sample, and the share of tokens that were drawn.
    """  # fmt: skip
    whole = {(one.problem_id, one.sample_idx): one for one in engine.sample(requests, params=params)}
    judge = judge_of(prm, splitter=splitter, reward=reward, reference_draws=reference_draws)
    found = {one.problem_id: one for one in engine.best_first(requests, params=params, judge=judge, batch=batch)}
    assert len(found) == len(requests)
    n_drawn = n_whole = n_left_out = 0
    for request in requests:
        decided = found[request.problem_id]
        samples = [whole[request.problem_id, index] for index in request.sample_idxs]
        (wanted,) = engine._encoded([request])
        n_drawn += sum(len(one.sampled.token_ids or ()) for one in decided.samples)
        n_whole += sum(len(one.token_ids or ()) for one in samples)
        alike = [
            same_draw(engine._backbone, draft_of(one.sampled, wanted), sample, params)
            for one, sample in zip(decided.samples, samples, strict=True)
        ]
        if all(alike):
            check(decided, samples, scores_of(prm, request, samples, splitter=splitter, reward=reward))
        n_left_out += not all(alike)
    return n_left_out, n_drawn / n_whole


def draft_of(sampled: Sampled, wanted: object) -> Draft:
    return Draft(
        wanted=wanted, sample_idx=sampled.sample_idx, room=0, past=None, numbers=None, ids=list(sampled.token_ids)
    )  # type: ignore[arg-type]  # only what is compared


def check(decided: BestOfSamples, samples: Sequence[Sampled], scores: dict[int, float]) -> None:
    """The best is the best of all, finished and word for word; the others are beginnings that have fallen behind."""
    if not scores:
        assert decided.best is None
        return
    places = list(scores)
    best = places[best_of_n(list(scores.values()))]
    assert decided.best is not None
    assert decided.best == best or scores[best] - scores[decided.best] < NEAR
    assert decided.samples[decided.best].sampled.text == samples[decided.best].text
    for place, (written, sample) in enumerate(zip(decided.samples, samples, strict=True)):
        if written.sampled.stop_reason != "abandoned":
            assert (written.sampled.text, written.sampled.stop_reason) == (sample.text, sample.stop_reason)
            assert (written.step_scores is None) == (place not in scores)
            if written.step_scores is not None:
                assert min(written.step_scores) == pytest.approx(scores[place], abs=NEAR)
        elif place in scores:
            assert written.step_scores is not None
            assert scores[place] <= min(written.step_scores) + NEAR  # what is known bounds what it comes to


CASES = [
    ("lines", "with-reference", 1, False),
    ("lines", "with-reference", 3, True),
    ("lines", "without-reference", 2, False),
    ("lines", "reference-only", 1, True),
]


def test_the_sample_chosen_is_the_best_of_all(tmp_path: Path):
    many(tmp_path, 12, splitter="lines", reward="with-reference", batch=3, reference_draws=True)


@pytest.mark.slow
@pytest.mark.parametrize(("splitter", "reward", "batch", "reference_draws"), CASES)
def test_the_sample_chosen_is_the_best_of_all_over_thousands(tmp_path: Path, splitter, reward, batch, reference_draws):
    many(tmp_path, 1000, splitter=splitter, reward=reward, batch=batch, reference_draws=reference_draws)


def many(tmp_path: Path, n_problems: int, *, splitter: str, reward: str, batch: int, reference_draws: bool) -> None:
    """Tiny random models: one draws, and is the reference; another, of another shape, is the policy."""
    generator, policy = models(tmp_path)
    prm = reward_model(policy, generator)
    params = SamplingParams(temperature=1.3, max_new_tokens=90, seed=11)
    n_left_out, share = compare(
        HFEngine(model=str(generator), workers=1), prm, asked(n_problems, 6, seed=1), params, splitter=splitter,
        reward=reward, batch=batch, reference_draws=reference_draws,
    )  # fmt: skip
    assert n_left_out <= max(1, n_problems // 20)
    assert share < 1


SOLVED = SamplingParams(temperature=0.8, max_new_tokens=200, seed=0)


def of_the_world(n_problems: int, n: int) -> list[Request]:
    return [
        Request(problem_id=one.problem_id, prompt=one.prompt, sample_idxs=tuple(range(n)))
        for one in load_problems("arithmetic", split="test", limit=n_problems)
    ]


@pytest.mark.slow
def test_the_solvers_choose_as_from_whole_samples_with_fewer_tokens():
    n_left_out, share = compare(
        HFEngine(model="solver:base", workers=1), reward_model("solver:large", "solver:base"), of_the_world(4, 12),
        SOLVED, splitter="step_markers", reference_draws=True,
    )  # fmt: skip
    assert n_left_out <= 1
    assert share < 0.9


def test_a_reference_that_draws_is_not_read_and_chooses_alike():
    prm, engine = reward_model("solver:large", "solver:base"), HFEngine(model="solver:base")
    n_tokens, chosen = {}, {}
    for reference_draws in (False, True):
        judge = judge_of(prm, splitter="step_markers", reward="with-reference", reference_draws=reference_draws)
        found = list(engine.best_first(of_the_world(2, 4), params=SOLVED, judge=judge, batch=1))
        n_tokens[reference_draws] = sum(judge.rewards.read.values())
        chosen[reference_draws] = sorted((one.problem_id, one.best) for one in found)
    assert chosen[True] == chosen[False]
    assert n_tokens[False] == 2 * n_tokens[True]  # the policy alone is read


def test_a_sample_too_long_for_the_reward_model_is_never_chosen(tmp_path: Path):
    generator, policy = models(tmp_path)
    prm = reward_model(policy, generator)
    judge = judge_of(prm, splitter="lines", reward="with-reference", reference_draws=False, max_length=20)
    params = SamplingParams(temperature=1.0, max_new_tokens=40, seed=2)
    found = list(HFEngine(model=str(generator)).best_first(asked(12, 4, seed=3), params=params, judge=judge, batch=2))
    for decided in found:
        fits = [written.step_scores is not None for written in decided.samples]
        assert decided.best is None or fits[decided.best]
        assert decided.best is not None or not any(fits)
    assert any(one.best is None for one in found) or any(one.step_scores is None for d in found for one in d.samples)


def test_bad_settings_are_refused(tmp_path: Path):
    generator, _ = models(tmp_path)
    prm = reward_model(generator, generator)
    with pytest.raises(ConfigError, match="'auto': what it cuts is not known"):
        judge_of(prm, splitter="auto", reward="with-reference", reference_draws=False)
    judge = judge_of(prm, splitter="lines", reward="with-reference", reference_draws=False)
    with pytest.raises(ConfigError, match="batch: is 0"):
        next(HFEngine(model=str(generator)).best_first(asked(1, 1, 0), params=SamplingParams(), judge=judge, batch=0))
