import math
import threading
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import tiny
from freeprm.errors import ConfigError, DataError, ModelError, RewardMismatchError, SpanError
from freeprm.models.batching import Advance
from freeprm.models.encoding import encode
from freeprm.models.loading import LoadOptions, load_backbone, template_hash, weights_hash
from freeprm.models.logprobs import score_tokens
from freeprm.models.prompts import CLOCK_DATE, pin_date, render_prompt, told_date
from freeprm.models.reward_config import (
    Reference,
    RewardConfig,
    load_reward_config,
    save_reward_config,
)
from freeprm.scorers._log_ratio import are_apart, both
from freeprm.scorers._usage import Usage
from freeprm.scorers.base import ScorerSource, rollouts_of
from freeprm.scorers.implicit import ImplicitPRM, Loaded
from freeprm.types import Rollout
from patience import PATIENCE
from rounding import near

BETA = 0.5
PROMPT = "the sum of 3 and 4?"
RESPONSES = ["Step 1: yes.\n\nStep 2: it is 7.\n\nthe answer is 7", "no 🙂", "Step 1: 8\nthe answer is 8"]


def make(folder: Path, *, seed: int, template: str | None = None) -> Path:
    """A folder as `freeprm train` leaves it: its reference is the model of seed 0 in `folder / "ref"`."""
    reference = tiny.save(folder / "ref", template=template)
    prm = tiny.save(folder / "prm", seed=seed, template=template)
    save_reward_config(
        RewardConfig(
            beta=BETA, base=str(reference), objective="ce",
            template_sha256=template_hash(tiny.tokenizer(template=template)),
            reference=Reference(source=str(reference), weights_sha256=weights_hash(reference)),
        ),
        prm,
    )  # fmt: skip
    return prm


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("trained"), seed=1)


@pytest.fixture(scope="module")
def prm(folder: Path) -> ImplicitPRM:
    return ImplicitPRM.from_pretrained(folder)


@pytest.mark.parametrize("template", [None, tiny.LLAMA3])
def test_an_untrained_policy_earns_exactly_nothing(tmp_path, template):
    untrained = ImplicitPRM.from_pretrained(make(tmp_path, seed=0, template=template))
    assert untrained.policy.model is not untrained.reference.model
    for score in untrained.score(PROMPT, RESPONSES):
        assert set(score.token_rewards) == {0.0}
        assert score.reward == 0.0


def test_a_model_as_its_own_reference_earns_exactly_nothing(folder):
    own = ImplicitPRM.untrained(load_backbone(str(folder)))
    assert set(own.score(PROMPT, RESPONSES)[0].token_rewards) == {0.0}


def test_token_rewards_are_beta_times_the_log_ratio(prm):
    rollout = Rollout(problem_id="p", sample_idx=0, prompt=PROMPT, response=RESPONSES[0])
    logps = prm.logprobs([rollout])[0][0]
    score = prm.score(PROMPT, RESPONSES)[0]
    expected = [BETA * (a - b) for a, b in zip(logps.policy, logps.ref, strict=True)]
    assert score.token_rewards == near(expected)
    assert any(abs(reward) > 0.01 for reward in score.token_rewards)


@pytest.mark.parametrize("splitter", ["auto", "step_markers", "lines", "blank_lines", "sentences", "tokens"])
@pytest.mark.parametrize("reward", ["with-reference", "without-reference", "reference-only"])
def test_steps_tile_the_response_and_their_rewards_sum_to_its_own(prm, splitter, reward):
    for response, score in zip(RESPONSES, prm.score(PROMPT, RESPONSES, splitter=splitter, reward=reward), strict=True):
        assert math.fsum(score.step_rewards) == pytest.approx(score.reward, abs=1e-9)
        assert math.fsum(score.token_rewards) == pytest.approx(score.reward, abs=1e-9)
        assert score.q_values[-1] == pytest.approx(score.reward, abs=1e-9)
        assert score.steps[0].start == 0
        assert score.steps[-1].stop == len(response)
        if splitter != "tokens":
            assert all(one.stop == two.start for one, two in zip(score.steps, score.steps[1:], strict=False))


def test_steps_are_found_by_the_models_own_splitter_unless_another_is_asked_for(prm):
    text = RESPONSES[0]
    own = prm.score(PROMPT, [text])[0].steps
    assert [text[start:stop] for start, stop in own] == ["Step 1: yes.\n\n", "Step 2: it is 7.\n\nthe answer is 7"]
    assert len(prm.score(PROMPT, [text], splitter="blank_lines")[0].steps) == 3


def test_steps_may_be_given(prm):
    given = ["Step 1: yes.", "Step 2: it is 7.", "the answer is 7"]
    score = prm.score(PROMPT, RESPONSES[:1], steps=[given])[0]
    assert [RESPONSES[0][start:stop].strip() for start, stop in score.steps] == given
    with pytest.raises(SpanError, match="step 1"):
        prm.score(PROMPT, RESPONSES[:1], steps=[["Step 1: yes.", "Step 3"]])
    with pytest.raises(DataError, match="1 lists of steps for 2 responses"):
        prm.score(PROMPT, RESPONSES[:2], steps=[given])


def test_p_correct_is_the_sigmoid_of_q(prm):
    score = prm.score(PROMPT, RESPONSES[:1])[0]
    assert score.p_correct == pytest.approx([1 / (1 + math.exp(-q)) for q in score.q_values])


def test_the_end_token_counts_for_finished_responses_only(prm):
    whole = prm.score(PROMPT, RESPONSES[:1])[0]
    beginning = prm.score(PROMPT, RESPONSES[:1], finished=False)[0]
    assert beginning.token_rewards == near(whole.token_rewards[:-1])
    assert whole.tokens[-1] == (len(RESPONSES[0]), len(RESPONSES[0]))


def test_a_score_does_not_depend_on_what_is_scored_with_it(prm):
    together = prm.score(PROMPT, RESPONSES)
    alone = [prm.score(PROMPT, [response])[0] for response in RESPONSES]
    for one, other in zip(together, alone, strict=True):
        assert one.token_rewards == near(other.token_rewards)


def test_reading_gives_what_scoring_gives(prm):
    rollouts = [
        Rollout(problem_id="p", sample_idx=index, prompt=PROMPT, response=response)
        for index, response in enumerate(RESPONSES)
    ]
    logps, counts = prm.logprobs(rollouts)
    assert not counts
    for reward in ("with-reference", "without-reference", "reference-only"):
        read = [prm.read(logps[index], response, reward=reward) for index, response in enumerate(RESPONSES)]
        assert read == prm.score(PROMPT, RESPONSES, reward=reward)


def test_without_its_reference_it_scores_only_without(folder, prm):
    alone = ImplicitPRM.from_pretrained(folder, load_reference=False)
    assert alone.reference is None
    assert alone.score(PROMPT, RESPONSES, reward="without-reference") == prm.score(
        PROMPT, RESPONSES, reward="without-reference"
    )
    with pytest.raises(ModelError, match="needs the reference, which was not loaded; choose 'without-reference'"):
        alone.score(PROMPT, RESPONSES)


def test_both_models_compute_in_the_precision_asked_for(folder):
    half = ImplicitPRM.from_pretrained(folder, dtype="bfloat16")
    assert half.policy.dtype == half.reference.dtype == "bfloat16"


def test_a_policy_of_float32_that_is_read_in_16_bits_is_told_what_is_left_of_its_training(tmp_path, recwarn):
    folder = make(tmp_path, seed=0)
    model = tiny.language_model()
    with torch.no_grad():
        for weight in model.parameters():
            weight += 1e-6  # bfloat16 tells numbers of 0.2 apart by 2^-10
    model.save_pretrained(folder)
    ImplicitPRM.from_pretrained(folder)
    ImplicitPRM.from_pretrained(make(tmp_path / "far", seed=1), dtype="bfloat16")
    assert not [one for one in recwarn if "read in" in str(one.message)]
    with pytest.warns(UserWarning, match=r"kept in float32 and read in bfloat16, .* cosine of 0\.\d\d to it"):
        ImplicitPRM.from_pretrained(folder, dtype="bfloat16")


def test_a_moved_reference_is_recognised_by_its_weights(folder, tmp_path):
    moved = tiny.save(tmp_path / "moved")
    assert ImplicitPRM.from_pretrained(folder, reference=moved).reference.source == str(moved)


def test_a_reference_that_is_gone_is_asked_for(tmp_path):
    prm = make(tmp_path, seed=1)
    (tmp_path / "ref").rename(tmp_path / "elsewhere")
    with pytest.raises(ModelError, match="Say where it is now with --reference"):
        ImplicitPRM.from_pretrained(prm)
    ImplicitPRM.from_pretrained(prm, reference=tmp_path / "elsewhere")


@pytest.mark.parametrize("part", ["reference", "beta", "template"])
def test_another_part_than_in_training_is_refused_unless_it_is_asked_for(folder, tmp_path, part):
    changed: dict[str, object] = {}
    if part == "reference":
        changed["reference"] = tiny.save(tmp_path / "other", seed=2)
    elif part == "beta":
        changed["beta"] = 0.001
    else:
        (folder / "chat_template.jinja").write_text(tiny.LLAMA3)
    try:
        with pytest.raises(RewardMismatchError, match=f"--override {part}"):
            ImplicitPRM.from_pretrained(folder, **changed)
        loaded = ImplicitPRM.from_pretrained(folder, override=[part], **changed)
    finally:
        (folder / "chat_template.jinja").unlink(missing_ok=True)
    assert loaded.config.beta == changed.get("beta", BETA)


def test_a_template_tells_the_day_that_reward_json_records(tmp_path):
    prm = make(tmp_path, seed=1, template=tiny.DATED)  # with the hash of the template as it comes, and no day
    with pytest.raises(RewardMismatchError, match=r"it tells the day 2024-07-26; what it told then is not recorded"):
        ImplicitPRM.from_pretrained(prm)
    assert told_date(ImplicitPRM.from_pretrained(prm, override=["template"]).policy.tokenizer) == CLOCK_DATE
    tokenizer = tiny.tokenizer(template=tiny.DATED)
    pin_date(tokenizer, "2025-01-12")
    config = replace(
        load_reward_config(prm), template_sha256=template_hash(tokenizer), template_date=told_date(tokenizer)
    )
    save_reward_config(config, prm)
    policy = ImplicitPRM.from_pretrained(prm).policy
    assert render_prompt(policy.tokenizer, "?").startswith("12 Jan 2025\n")
    tokenizer.save_pretrained(prm)  # as training leaves it
    assert told_date(ImplicitPRM.from_pretrained(prm).policy.tokenizer) == "2025-01-12"


def test_the_recorded_beta_may_be_repeated(folder):
    assert ImplicitPRM.from_pretrained(folder, beta=BETA).config.beta == BETA


def test_an_unknown_override_is_refused():
    with pytest.raises(ConfigError, match="expected one of beta, reference, template"):
        ImplicitPRM.from_pretrained("anywhere", override=["gamma"])


def test_a_reference_with_another_vocabulary_is_refused_even_if_another_is_asked_for(folder, stories):
    with pytest.raises(ModelError, match="the tokenizers of policy and reference differ"):
        ImplicitPRM.from_pretrained(folder, reference=stories, override=["reference"])


def test_a_plain_model_is_not_a_reward_model(tmp_path):
    with pytest.raises(ModelError, match=r"no reward\.json"):
        ImplicitPRM.from_pretrained(tiny.save(tmp_path))


def test_an_empty_response_cannot_be_scored(prm):
    with pytest.raises(DataError, match="response 1: it is empty"):
        prm.score(PROMPT, ["four", ""])


def test_a_response_that_the_context_does_not_hold_is_an_error_or_is_cut(prm):
    long = "~" * 2 * tiny.CONTEXT
    with pytest.raises(DataError, match="choose 'exclude' or 'truncate'"):
        prm.score(PROMPT, [long])
    with pytest.raises(ConfigError, match="one score a response"):
        prm.score(PROMPT, [long], too_long="exclude")
    score = prm.score(PROMPT, [long], too_long="truncate")[0]
    assert score.steps[-1].stop == score.tokens[-1].stop < len(long)
    assert math.fsum(score.step_rewards) == pytest.approx(score.reward, abs=1e-9)
    with pytest.raises(DataError, match="response 0: its prompt alone fills the context"):
        prm.score(long, ["four"], too_long="truncate")


def test_given_steps_behind_the_cut_are_left_out(prm):
    long = "~" * 2 * tiny.CONTEXT
    score = prm.score(PROMPT, [long + "\n\nend"], steps=[[long, "end"]], too_long="truncate")[0]
    assert len(score.steps) == 1


def test_responses_left_out_are_counted(prm):
    rollouts = [
        Rollout(problem_id="p", sample_idx=index, prompt=PROMPT, response=response)
        for index, response in enumerate(["", "four", "~" * 2 * tiny.CONTEXT])
    ]
    logps, counts = prm.logprobs(rollouts)
    assert list(logps) == [1]
    assert counts == {"excluded: empty response": 1, "excluded: longer than the context": 1}


def test_its_identity_changes_with_what_decides_its_scores(folder, prm):
    def identity(**how: object) -> dict[str, object]:
        return dict(ImplicitPRM.from_pretrained(folder, **how).identity())

    assert identity() == dict(prm.identity())
    others: list[Callable[[], dict[str, object]]] = [
        lambda: identity(load_reference=False),
        lambda: identity(beta=1.0, override=["beta"]),
        lambda: identity(dtype="bfloat16"),
    ]
    assert all(other() != identity() for other in others)


def test_the_reference_of_real_weights_earns_exactly_nothing_too(stories):
    untrained = ImplicitPRM.untrained(load_backbone(str(stories)))
    score = untrained.score("Once upon a time", ["there was a cat.\n\nThe cat was big. 🙂"], splitter="blank_lines")[0]
    assert set(score.token_rewards) == {0.0}
    assert len(score.steps) == 2


@pytest.mark.parametrize("at_once", [True, False])
def test_models_side_by_side_say_what_they_say_one_by_one(folder, at_once, monkeypatch):
    monkeypatch.setattr("freeprm.scorers._log_ratio.are_apart", lambda policy, reference: at_once)
    prm = ImplicitPRM.from_pretrained(folder, reference_device="cpu")
    rollouts = [Rollout(problem_id="p", sample_idx=i, prompt=PROMPT, response=r) for i, r in enumerate(RESPONSES)]
    found, _ = prm.logprobs(rollouts, token_budget=20)
    for index, item in found.items():
        for model, logps in ((prm.policy.model, item.policy), (prm.reference.model, item.ref)):
            [alone] = score_tokens(model, [item.encoded])
            assert logps == near(alone.numpy()), index
    ours = [part.token_rewards for part in prm.score(PROMPT, RESPONSES)]
    monkeypatch.setattr("freeprm.scorers._log_ratio.are_apart", lambda policy, reference: False)
    assert ours == [part.token_rewards for part in prm.score(PROMPT, RESPONSES)]


class Event(threading.Event):
    """One that fails a test rather than to wait for ever."""

    def awaited(self) -> bool:
        return self.wait(timeout=PATIENCE)


def until_ended(begun: Event, tell: Advance) -> None:
    """A pass of very many batches."""
    begun.set()
    for _ in range(int(100 * PATIENCE)):
        tell(1, 1)
        threading.Event().wait(0.01)
    raise AssertionError("nobody ended this pass")


def test_two_models_give_the_same_numbers_side_by_side_as_one_by_one(tmp_path):
    models = [load_backbone(str(tiny.save(tmp_path / str(seed), seed=seed))) for seed in (0, 1)]
    encoded = encode(models[0].tokenizer, tiny.rollouts(5))

    def run(*, at_once: bool) -> tuple[list[torch.Tensor], list[tuple[int, int]]]:
        told: list[tuple[int, int]] = []
        ours, theirs = both(
            lambda tell: score_tokens(models[0].model, encoded, token_budget=200, advance=tell),
            lambda tell: score_tokens(models[1].model, encoded, token_budget=200, advance=tell),
            advance=lambda *batch: told.append(batch),
            at_once=at_once,
        )
        return [*ours, *theirs], sorted(told)

    together, one_by_one = run(at_once=True), run(at_once=False)
    assert together[1] == one_by_one[1]
    assert len(together[1]) > 2  # so there were batches of both to take turns
    for a, b in zip(together[0], one_by_one[0], strict=True):
        assert torch.equal(a, b)


def test_both_are_at_work_at_the_same_time():
    first, second = Event(), Event()

    def begin(mine: Event, others: Event) -> bool:
        mine.set()
        return others.awaited()

    pair = both(
        lambda tell: begin(first, second), lambda tell: begin(second, first), advance=lambda *batch: None, at_once=True
    )
    assert pair == (True, True)


def test_one_by_one_the_second_begins_when_the_first_is_done():
    order = []
    both(lambda tell: order.append(1), lambda tell: order.append(2), advance=lambda *batch: None, at_once=False)
    assert order == [1, 2]


@pytest.mark.parametrize("error", [ValueError("the first"), KeyboardInterrupt()])
def test_an_error_of_the_first_ends_the_second_and_is_raised(error):
    begun = Event()

    def fails(tell: Advance) -> None:
        assert begun.awaited()
        raise error

    with pytest.raises(type(error)) as raised:
        both(fails, lambda tell: until_ended(begun, tell), advance=lambda *batch: None, at_once=True)
    assert raised.value is error


def test_an_error_of_the_second_ends_the_first_and_is_raised():
    begun = Event()

    def fails(tell: Advance) -> None:
        assert begun.awaited()
        raise ValueError("the second")

    with pytest.raises(ValueError, match="the second"):
        both(lambda tell: until_ended(begun, tell), fails, advance=lambda *batch: None, at_once=True)


def test_an_error_of_the_second_is_raised_where_the_first_is_done():
    def fails(tell: Advance) -> None:
        raise ValueError("the second")

    with pytest.raises(ValueError, match="the second"):
        both(lambda tell: 1, fails, advance=lambda *batch: None, at_once=True)


def test_models_on_different_devices_are_apart(prm):
    here = Loaded(prm.policy, None)
    there = Loaded(replace(prm.policy, model=deepcopy(prm.policy.model).to("meta")), None)
    assert not are_apart(here, Loaded(prm.reference, None))
    assert are_apart(here, there)


def test_what_a_cache_keeps_is_what_would_be_computed_and_costs_what_it_did(folder, prm, tmp_path, monkeypatch):
    rollouts = rollouts_of(PROMPT, RESPONSES)
    expected, first, again = Usage(), Usage(), Usage()
    plain, _ = prm.score_rollouts(rollouts, usage=expected)
    cached = ImplicitPRM.load(ScorerSource(source=str(folder), cache=tmp_path / "kept"))
    assert cached.score_rollouts(rollouts, usage=first)[0] == plain
    monkeypatch.setattr("freeprm.models.reference_logprobs.score_tokens", None)  # nothing is computed from here on
    assert cached.score_rollouts(rollouts, usage=again)[0] == plain
    alone = ImplicitPRM.load(ScorerSource(source=str(folder), cache=tmp_path / "kept", load_reference=False))
    assert alone.score_rollouts(rollouts)[0].keys() == plain.keys()
    tokens = [{what: usage.tokens for what, usage in one.models.items()} for one in (expected, first, again)]
    assert tokens[0] == tokens[1] == tokens[2]
    assert all(usage.seconds > 0 for usage in again.models.values())


def test_another_precision_or_other_responses_are_not_taken_from_a_cache(folder, tmp_path):
    source = ScorerSource(source=str(folder), cache=tmp_path)
    ImplicitPRM.load(source).score_rollouts(rollouts_of(PROMPT, RESPONSES))
    assert len(list(tmp_path.iterdir())) == 2  # a file for each model
    ImplicitPRM.load(replace(source, options=LoadOptions(dtype="bfloat16"))).logprobs(rollouts_of(PROMPT, RESPONSES))
    assert len(list(tmp_path.iterdir())) == 4
    ImplicitPRM.load(source).logprobs(rollouts_of(PROMPT, RESPONSES[:2]))
    assert len(list(tmp_path.iterdir())) == 6
