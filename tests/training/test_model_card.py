import pytest

from freeprm.models.reward_config import Reference, RewardConfig
from freeprm.training.model_card import model_card
from freeprm.training.settings import TrainSettings


def test_the_card_says_how_to_read_the_reward_and_what_it_was_made_of():
    config = RewardConfig(
        beta=0.05, base="a/b", reference=Reference(source="c/d", weights_sha256="0" * 64), objective="dpo"
    )
    card = model_card(
        config, TrainSettings(model="a/b", seed=3), counts={"right responses": 5}, final={"loss": 0.25, "step": 10}
    )
    assert card.startswith("---\nlibrary_name: transformers\nbase_model: a/b\n")
    assert "r(y) = 0.05 * log( pi(y|x) / pi_ref(y|x) ),    pi_ref = c/d" in card
    assert "| right responses | 5 |" in card
    assert "| loss | 0.2500 |" in card
    assert "Seed 3." in card


@pytest.mark.parametrize(
    ("parameterisation", "judgement", "read_at", "said"),
    [
        ("linear", None, "response", ["# Outcome reward model (linear, ce)", "the response's last token", "V = w . h"]),
        (
            "tokens",
            ("+", "-"),
            "steps",
            ["# Process reward model", "last token of each step", "logit('+') - logit('-')"],
        ),
    ],
)
def test_the_card_of_values_says_what_they_are_and_where_they_are_read(parameterisation, judgement, read_at, said):
    config = RewardConfig(
        beta=1.0, base="a/b", reference=None, objective="ce", parameterisation=parameterisation, read_at=read_at,
        judgement=judgement,
    )  # fmt: skip
    card = model_card(config, TrainSettings(model="a/b"), counts={"labelled steps": 9}, final={})
    assert all(text in card for text in said)
    assert "Trained from a/b on labels of steps, with objective `ce`." in card
    assert "ImplicitPRM" not in card
    assert "pi_ref" not in card


def test_a_base_that_is_no_hub_model_is_not_given_as_one():
    config = RewardConfig(
        beta=0.5,
        base="/models/mine",
        reference=Reference(source="solver:base", weights_sha256="0" * 64),
        objective="ce",
    )
    assert "base_model" not in model_card(config, TrainSettings(model="m"), counts={}, final={})
