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


def test_a_base_that_is_no_hub_model_is_not_given_as_one():
    config = RewardConfig(
        beta=0.5,
        base="/models/mine",
        reference=Reference(source="solver:base", weights_sha256="0" * 64),
        objective="ce",
    )
    assert "base_model" not in model_card(config, TrainSettings(model="m"), counts={}, final={})
