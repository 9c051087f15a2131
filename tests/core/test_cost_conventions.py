"""What the two conventions charge, by hand."""

import pytest

from costs import charge
from freeprm.core.cost_conventions import ALL_IN, AS_PUBLISHED, charging, under
from freeprm.core.ledger import DEVELOPMENT, USE, Ledger, Paid, ledger_of
from freeprm.errors import ConfigError
from freeprm.types import Cost

P = 10  # parameters


def book() -> Ledger:
    # Trained on 100 tokens, which are 300 in whole sequences.
    train = Cost(
        sequence_tokens=300, seconds=3.0,
        charges=(
            charge("training", 100, 6 * P * 100, 60), charge("recomputed activations", 100, 2 * P * 100, 20),
            charge("KL estimate", 7, 2 * P * 7, 1), charge("evaluation while training", 9, 2 * P * 9, 1),
            charge("reference forward", 50, 2 * P * 50, 5),
        ),
    )  # fmt: skip
    runs = [
        ("sample", DEVELOPMENT, Cost(charges=(charge("prefill", 5, 100, 1), charge("decode", 40, 2 * P * 40, 9)))),
        ("label", DEVELOPMENT, Cost(charges=(charge("decode", 1000, 2 * P * 1000, 77),))),
        ("train", DEVELOPMENT, train),
        ("score", USE, Cost(charges=(charge("policy forward", 1, 2 * P, 0),))),
    ]
    return ledger_of(Paid(folder=stage, stage=stage, purpose=why, cost=cost) for stage, why, cost in runs)


def test_as_published_charges_whole_sequences_and_annotation_and_neither_rollouts_nor_reference():
    charged = under(AS_PUBLISHED, book())
    groups = {name: part.total().flops for name, part in charged.by("group").items()}
    assert groups == {"annotation": 2 * P * 1000, "training": 6 * P * 300}
    assert charged.total().attention_flops == 0
    assert charged.total().seconds == 3.0


def test_all_in_charges_what_was_done_for_development():
    charged = under(ALL_IN, book())
    assert charged == book().only(DEVELOPMENT)
    assert charged.by("group")["training"].total().parameter_flops == P * (600 + 200 + 14 + 18)
    assert "scoring" not in charged.by("group")


def test_pairs_cost_what_the_formula_says():
    # r responses of L tokens, half of them right: CE has r sequences, DPO r^2 / 4 pairs of two: (r / 2) L r tokens.
    r, length = 8, 11
    trained = charge("training", 70, 6 * P * 70)
    ce, dpo = (
        under(
            AS_PUBLISHED,
            ledger_of([
                Paid(
                    folder="train", stage="train", purpose=DEVELOPMENT,
                    cost=Cost(sequence_tokens=n * length, charges=(trained,)),
                )
            ]),
        ).total().flops
        for n in (r, 2 * r**2 // 4)
    )  # fmt: skip
    assert dpo / ce == r / 2


def test_training_of_earlier_versions_counts_as_it_was_read():
    old = Paid(folder="train", stage="train", purpose=DEVELOPMENT, cost=Cost(trained_tokens=10, flops=600.0))
    assert under(AS_PUBLISHED, ledger_of([old])).total().flops == 600


def test_ones_own_convention_takes_any_groups():
    own = charging(["training", "generation"], attention=False)
    assert own.charged == ("generation", "training")
    assert under(own, book()).total().flops == P * (600 + 200 + 14 + 18) + 2 * P * 45
    with pytest.raises(ConfigError, match="no group 'attention'; there are generation"):
        charging(["attention"], attention=True)
