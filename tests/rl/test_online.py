"""The online reward model: what its rewards are, what it learns, and what a checkpoint keeps."""

from pathlib import Path

import pytest
import torch

from freeprm.errors import ConfigError
from freeprm.models.encoding import encode
from freeprm.objectives.base import objective_named
from freeprm.rl.online import OnlinePRM
from freeprm.rl.rewards import token_rewards
from freeprm.scorers.base import rollouts_of
from freeprm.scorers.implicit import ImplicitPRM

ASKED = ("the sum of 3 and 4?", "the sum of 5 and 1?")
SAID = ("Step 1: so 7", "it is 8", "it is 12")


def made(folder: Path, *, objective: str = "ce", rate: float = 1e-2) -> OnlinePRM:
    return OnlinePRM(
        ImplicitPRM.from_pretrained(folder), objective_named(objective), name=objective, learning_rate=rate
    )


@pytest.fixture(scope="module")
def drawn(template_prm: Path) -> tuple[list[list[int]], list[list[int]]]:
    """Token ids of three responses to each of two prompts."""
    tokenizer = ImplicitPRM.from_pretrained(template_prm).tokenizer
    items = [item for asked in ASKED for item in encode(tokenizer, rollouts_of(asked, SAID))]
    return [item.ids[: item.n_prompt].tolist() for item in items], [
        item.ids[item.n_prompt :].tolist() for item in items
    ]


def test_without_a_learning_rate_its_rewards_are_the_models_own(template_prm: Path, drawn):
    online = made(template_prm, rate=0.0)
    found, loss = online.rewards(*drawn, [True, False, None] * 2)
    assert loss is None
    expected = token_rewards(ImplicitPRM.from_pretrained(template_prm), *drawn)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=0)


@pytest.mark.parametrize("objective", ["ce", "dpo", "nca", "ipvrm"])
def test_it_learns_from_outcomes_before_it_rewards(template_prm: Path, drawn, objective: str):
    online = made(template_prm, objective=objective)
    labels = [True, False, None, True, False, None]
    before = [float(own.sum()) for own in made(template_prm, rate=0.0).rewards(*drawn, labels)[0]]
    losses = [online.rewards(*drawn, labels)[1] for _ in range(8)]
    assert losses[-1] < losses[0]
    after = [float(own.sum()) for own in online.rewards(*drawn, labels)[0]]
    for first in (0, 3):
        assert after[first] - after[first + 1] > before[first] - before[first + 1]


def test_its_loss_is_the_mean_over_responses_with_a_label(template_prm: Path, drawn):
    rewards = [float(own.sum()) for own in made(template_prm, rate=0.0).rewards(*drawn, [None] * 6)[0]]
    _, loss = made(template_prm).rewards(*drawn, [True, False, None, True, None, None])
    by_hand = [torch.tensor(sign * rewards[row]).sigmoid().log() for row, sign in ((0, 1), (1, -1), (3, 1))]
    assert loss == pytest.approx(-float(sum(by_hand)) / 3, abs=1e-5)


def test_what_has_no_label_or_no_pair_teaches_nothing(template_prm: Path, drawn):
    for objective, labels in (("ce", [None] * 6), ("dpo", [True] * 6)):
        online = made(template_prm, objective=objective)
        before = {name: weight.clone() for name, weight in online.prm.policy.model.state_dict().items()}
        _, loss = online.rewards(*drawn, labels)
        assert loss is None
        for name, weight in online.prm.policy.model.state_dict().items():
            assert torch.equal(weight, before[name])


def test_a_checkpoint_goes_on_as_if_never_interrupted(template_prm: Path, drawn, tmp_path: Path):
    labels = [True, False, False] * 2
    whole, part = made(template_prm), made(template_prm)
    for online in (whole, part):
        online.rewards(*drawn, labels)
    torch.save(part.state(), tmp_path / "state.pt")
    resumed = made(template_prm)
    resumed.resume(torch.load(tmp_path / "state.pt", weights_only=True))
    for one, other in zip(whole.rewards(*drawn, labels)[0], resumed.rewards(*drawn, labels)[0], strict=True):
        assert torch.equal(one, other)


def test_what_is_saved_scores_as_it_rewarded(template_prm: Path, drawn, tmp_path: Path):
    online = made(template_prm, objective="ipvrm")
    rewarded, _ = online.rewards(*drawn, [True, False, False] * 2)
    online.save(tmp_path / "prm")
    loaded = ImplicitPRM.from_pretrained(tmp_path / "prm", reference=online.prm.reference.folder)
    assert loaded.config.objective == "ipvrm"
    assert loaded.config.beta == online.prm.config.beta
    for one, other in zip(token_rewards(loaded, *drawn), rewarded, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=0)


@pytest.mark.parametrize("objective", ["kto", "bco", "step_ce"])
def test_objectives_that_need_more_are_refused(template_prm: Path, objective: str):
    with pytest.raises(ConfigError, match=f"objective '{objective}': needs more than rewards and labels"):
        made(template_prm, objective=objective)
