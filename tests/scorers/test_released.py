"""What holds for every released recipe, asked of each as it stands."""

import dataclasses
import pickle

import pytest

from freeprm.core.rewards import AGGREGATORS
from freeprm.core.steps import SPLITTERS
from freeprm.io.plugins import load, names
from freeprm.models.heads import Layout
from freeprm.scorers._released import ReleasedRecipe, first_of_two, second_of_two, sigmoid, unchanged

RELEASED = [name for name in names("scorers") if hasattr(load("scorers", name), "released")]


def test_every_released_model_of_the_issue_has_a_recipe():
    hub_ids = {hub_id for name in RELEASED for hub_id in load("scorers", name).released}
    assert hub_ids >= {
        "openbmb/Eurus-RM-7b", "Skywork/Skywork-Reward-Llama-3.1-8B", "RLHFlow/ArmoRM-Llama3-8B-v0.1",
        "peiyi9979/math-shepherd-mistral-7b-prm", "RLHFlow/Llama3.1-8B-PRM-Mistral-Data",
        "RLHFlow/Llama3.1-8B-PRM-Deepseek-Data", "Qwen/Qwen2.5-Math-PRM-7B", "PRIME-RL/EurusPRM-Stage1",
        "PRIME-RL/EurusPRM-Stage2", "Skywork/Skywork-o1-Open-PRM-Qwen-2.5-7B",
    }  # fmt: skip


@pytest.mark.parametrize("name", RELEASED)
def test_a_recipe_is_frozen_data_with_its_file_s_name(name):
    recipe = load("scorers", name)
    assert recipe.name == name
    assert recipe.released
    with pytest.raises(dataclasses.FrozenInstanceError):
        recipe.name = "other"
    assert pickle.loads(pickle.dumps(recipe)) == recipe


@pytest.mark.parametrize("name", RELEASED)
def test_a_recipe_says_how_steps_are_cut_and_aggregated_or_scores_whole_responses(name):
    recipe = load("scorers", name)
    if recipe.splitter is None:
        assert recipe.aggregation is None
    else:
        assert recipe.splitter in SPLITTERS
        assert recipe.aggregation in AGGREGATORS


@pytest.mark.parametrize("name", [name for name in RELEASED if isinstance(load("scorers", name), ReleasedRecipe)])
def test_the_tokens_that_are_read_are_among_those_that_are_checked(name):
    recipe = load("scorers", name)
    if not isinstance(recipe.head, Layout):
        assert set(recipe.head) <= set(recipe.tokens.values())


@pytest.mark.parametrize("name", [name for name in RELEASED if isinstance(load("scorers", name), ReleasedRecipe)])
def test_scores_that_went_through_a_softmax_or_sigmoid_are_probabilities(name):
    recipe = load("scorers", name)
    squashed = recipe.normalise in (first_of_two, second_of_two, sigmoid)
    assert recipe.kind == ("probability" if squashed else "unbounded")


def test_normalisers_by_hand():
    import torch

    outputs = torch.tensor([[0.0, 1.0986123]])  # 0 and log 3: shares of 1/4 and 3/4
    assert first_of_two(outputs).item() == pytest.approx(0.25)
    assert second_of_two(outputs).item() == pytest.approx(0.75)
    assert sigmoid(outputs[:, 1:]).item() == pytest.approx(0.75)
    assert unchanged(outputs[:, 1:]).item() == pytest.approx(1.0986123)
