"""Any reward model by name: told apart without loading it, loaded as it is named, and what all of them do."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

import releases
import tiny
from freeprm.core.flops import ModelShape
from freeprm.errors import ConfigError, DataError, ModelError, PluginError, RewardMismatchError, SpanError
from freeprm.models.loading import LoadOptions, weights_hash
from freeprm.models.reward_config import Reference, RewardConfig, save_reward_config
from freeprm.scorers._usage import Usage
from freeprm.scorers.base import (
    DEFAULT_SCORING,
    Description,
    Scorer,
    ScorerSource,
    Scores,
    ScoringOptions,
    load_scorer,
    rollouts_of,
    steps_of,
)
from freeprm.scorers.implicit import ImplicitPRM
from freeprm.scorers.valued import Valued
from freeprm.types import Ranked, Rollout, Span

FLOAT32 = LoadOptions(dtype="float32", device="cpu")


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """A reward model's folder; its reference lies beside it."""
    base, policy = (tiny.save(tmp_path / name, seed=seed) for seed, name in enumerate(("base", "policy")))
    reference = Reference(source=str(base), weights_sha256=weights_hash(base))
    config = RewardConfig(beta=0.5, base="b", objective="ce", reference=reference, splitter="lines")
    save_reward_config(config, policy)
    return policy


@pytest.mark.parametrize("changed", [{}, {"load_reference": False}, {"beta": 1.0, "override": ("beta",)}])
def test_what_is_said_without_loading_is_what_the_loaded_model_says(trained: Path, changed: dict[str, object]):
    source = ScorerSource(source=str(trained), options=FLOAT32, **changed)  # type: ignore[arg-type]
    prm = source.load()
    assert source.describe().identity() == prm.identity()
    assert source.describe().splitter == prm.config.splitter == "lines"
    assert source.shape() == ModelShape.of(prm.policy.model.config)
    assert (prm.reference is None) == (not source.load_reference)


def test_an_untrained_model_is_its_own_reference(trained: Path):
    source = ScorerSource(source=str(trained.parent / "base"), scorer="untrained", options=FLOAT32)
    prm = source.load()
    assert prm.reference is prm.policy
    assert source.describe().identity() == prm.identity()
    assert source.describe().splitter == prm.config.splitter


def test_a_reference_that_moved_is_named(trained: Path):
    moved = (trained.parent / "base").rename(trained.parent / "moved")
    with pytest.raises(ModelError):
        ScorerSource(source=str(trained)).describe()
    source = ScorerSource(source=str(trained), reference=str(moved), options=FLOAT32)
    assert source.describe().identity() == source.load().identity()
    with pytest.raises(RewardMismatchError):
        ScorerSource(source=str(trained), reference=str(trained)).load()


@pytest.fixture(scope="module")
def shepherd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ms")
    return releases.save_released(folder, releases.seeded(releases.mistral), releases.mistral_tokenizer())


def test_a_source_knows_a_released_model_without_loading_it(shepherd: Path):
    source = ScorerSource(scorer="math_shepherd", source=str(shepherd), options=FLOAT32)
    scorer, about = source.load(), source.describe()
    assert scorer.about == about
    assert scorer.identity() == about.identity()
    # The output head, 16 x 32,000 weights, is read for two tokens at a few positions only.
    assert source.shape().n_parameters - scorer.shape().n_parameters == 16 * 32_000


def test_a_scorer_that_is_none_is_refused():
    with pytest.raises(PluginError, match="Did you mean 'math_shepherd'"):
        ScorerSource(scorer="math_shepard", source="x").load()
    with pytest.raises(PluginError, match="has no `describe` and `load`; see `Member`"):
        ScorerSource(scorer="freeprm.types:Rollout", source="x").load()


def test_what_reward_json_says_decides_what_is_loaded(trained: Path):
    prm = load_scorer(trained, device="cpu")
    assert isinstance(prm, ImplicitPRM)
    assert prm.about.rewards == ("with-reference",)
    config = RewardConfig(
        beta=1.0, base="b", reference=None, objective="step_ce", parameterisation="tokens", read_at="steps",
        judgement=("+", "-"),
    )  # fmt: skip
    save_reward_config(config, trained)
    valued = load_scorer(trained, device="cpu")
    assert isinstance(valued, Valued)
    assert valued.about.rewards == ()


def test_a_released_model_is_told_by_its_hub_id_or_by_a_class_that_is_one_recipe_s(
    trained: Path, monkeypatch: pytest.MonkeyPatch
):
    (trained / "reward.json").unlink()
    monkeypatch.setattr("freeprm.scorers.base.resolve", lambda source: trained)
    by_id = ScorerSource(source="peiyi9979/math-shepherd-mistral-7b-prm")
    assert by_id.describe().name == "math_shepherd"
    stored = json.loads((trained / "config.json").read_text())
    (trained / "config.json").write_text(json.dumps({**stored, "architectures": ["Qwen2ForProcessRewardModel"]}))
    assert ScorerSource(source=str(trained)).describe().name == "qwen_math_prm"


def test_a_plain_model_is_not_taken_for_a_scorer(trained: Path):
    base = trained.parent / "base"
    with pytest.raises(ModelError, match=r"no reward\.json, .*--scorer NAME --model MODEL, .*--untrained MODEL"):
        load_scorer(base)
    untrained = load_scorer(base, scorer="untrained", device="cpu")
    assert untrained.about.rewards == ("reference-only",)
    with pytest.raises(ConfigError, match="reference: is for log-ratios; an untrained model is its own reference"):
        load_scorer(base, scorer="untrained", reference=trained)


@dataclass(frozen=True)
class Lengths(Scorer):
    """Anyone's own: longer steps are better; it scores nothing that is empty."""

    about: ClassVar[Description] = Description(name="lengths", splitter="lines", aggregation="sum")

    def describe(self, source: ScorerSource) -> Description:
        return self.about

    def load(self, source: ScorerSource) -> Scorer:
        return self

    def shape(self) -> ModelShape:
        return ModelShape(n_parameters=0, n_layers=0, attention_width=0)

    def score_rollouts(
        self, rollouts: Sequence[Rollout], options: ScoringOptions = DEFAULT_SCORING, *, usage: Usage | None = None
    ) -> tuple[dict[int, Scores], Counter[str]]:
        steps = [rollout.response.split() for rollout in rollouts]
        return {
            index: Scores(step_scores=tuple(float(len(word)) for word in words), n_tokens=1)
            for index, words in enumerate(steps)
            if words
        }, Counter()


LENGTHS = Lengths()


def test_responses_are_ranked_best_first_by_the_scorer_s_own_aggregation_or_another():
    scorer = load_scorer("anywhere", scorer=f"{__name__}:LENGTHS")
    responses = ["aa", "a aaa", "aaa a", "aaaa"]  # sums 2, 4, 4, 4; least steps 2, 1, 1, 4
    assert [item.index for item in scorer.rank("?", responses)] == [1, 2, 3, 0]
    assert [item.index for item in scorer.rank("?", responses, aggregator="min")] == [3, 0, 1, 2]
    assert scorer.best_of_n("?", responses) == Ranked(1, "a aaa", 4.0)
    assert scorer.best_of_n("?", responses, aggregator="min") == Ranked(3, "aaaa", 4.0)


def test_what_cannot_be_ranked_is_refused():
    with pytest.raises(DataError, match="response 1: cannot be scored, as it is empty"):
        LENGTHS.rank("?", ["a", ""])
    with pytest.raises(DataError, match="no responses; expected one or more"):
        LENGTHS.best_of_n("?", [])
    with pytest.raises(ConfigError, match="Did you mean 'min'"):
        LENGTHS.rank("?", ["a"], aggregator="mni")


def test_every_kind_of_scorer_ranks(trained: Path, shepherd: Path):
    given = ["Step 1: yes.\nthe answer is 7", "no"]
    sources = [
        ScorerSource(source=str(trained), options=FLOAT32),
        ScorerSource(source=str(trained), options=FLOAT32, load_reference=False),
        ScorerSource(source=str(trained.parent / "base"), scorer="untrained", options=FLOAT32),
        ScorerSource(source=str(shepherd), scorer="math_shepherd", options=FLOAT32),
    ]
    for source in sources:
        scorer = source.load()
        ranked = scorer.rank("One?", given)
        found, _ = scorer.score_rollouts(rollouts_of("One?", given))
        by_hand = [min(found[index].step_scores or ()) for index in range(2)]
        assert [item.score for item in ranked] == sorted(by_hand, reverse=True)
        assert ranked[0].response == given[max(range(2), key=by_hand.__getitem__)]


RESPONSE = "one\ntwo"
COVERED = [Span(0, 2), Span(2, 4), Span(4, 7), Span(7, 7)]  # "on", "e\n", "two", the end of the turn


def test_a_splitter_gives_the_characters_and_the_tokens_of_each_step():
    spans, tokens = steps_of(COVERED, RESPONSE, "lines", given=None)
    assert list(spans) == [(0, 4), (4, 7)]
    assert tokens == [(0, 2), (2, 4)]


def test_each_token_may_be_a_step():
    spans, tokens = steps_of(COVERED, RESPONSE, "tokens", given=None)
    assert spans == COVERED
    assert tokens == [(0, 1), (1, 2), (2, 3), (3, 4)]


def test_given_steps_come_before_the_splitter():
    spans, tokens = steps_of(COVERED, RESPONSE, "lines", given=["on", "e\ntwo"])
    assert list(spans) == [(0, 2), (2, 7)]
    assert tokens == [(0, 1), (1, 4)]
    with pytest.raises(SpanError):
        steps_of(COVERED, RESPONSE, "lines", given=["three"])


def test_what_the_context_did_not_hold_is_in_no_step():
    spans, tokens = steps_of(COVERED[:1], RESPONSE, "lines", given=None)
    assert list(spans) == [(0, 2)]
    assert tokens == [(0, 1)]
