"""The ledger: sums equal their parts, however it is divided; and what belongs to which group.

What the two conventions charge, by hand.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from costs import charge
from freeprm.core.ledger import (
    ALL_IN,
    AS_PUBLISHED,
    DEVELOPMENT,
    GROUPS,
    UNTIMED,
    USE,
    Ledger,
    Paid,
    charging,
    group_of,
    ledger_of,
    under,
)
from freeprm.errors import ConfigError
from freeprm.types import Charge, Cost

WHAT = (
    "prefill", "decode", "policy forward", "scorer forward", "reference forward", "training", "recomputed activations",
    "KL estimate", "evaluation while training", "a plug-in's own",
)  # fmt: skip
WHOLE = st.integers(0, 10**25)  # beyond what a float holds exactly
CHARGES = st.builds(
    Charge, what=st.sampled_from(WHAT), tokens=st.integers(0, 10**12), parameter_flops=WHOLE, attention_flops=WHOLE,
    seconds=st.none() | st.floats(0, 1e6),
)  # fmt: skip
COSTS = st.builds(
    lambda charges, seconds, n_gpus: Cost(charges=tuple(charges), seconds=seconds, gpu_seconds=n_gpus * seconds),
    st.lists(CHARGES, max_size=5, unique_by=lambda item: item.what), st.floats(1e-3, 1e6), st.integers(0, 8),
)  # fmt: skip
PAID = st.builds(
    Paid, folder=st.text("abc", min_size=1, max_size=3),
    stage=st.sampled_from(["sample", "label", "train", "score", "grade", "select"]),
    purpose=st.sampled_from([DEVELOPMENT, USE]), cost=COSTS,
)  # fmt: skip
RUNS = st.lists(PAID, max_size=6, unique_by=lambda run: run.folder)


@given(RUNS)
def test_sums_equal_their_parts_however_the_ledger_is_divided(runs: list[Paid]):
    book = ledger_of(runs)
    whole = book.total()
    for field in ("folder", "stage", "purpose", "group", "what"):
        parts = [part.total() for part in book.by(field).values()]
        assert sum(part.parameter_flops for part in parts) == whole.parameter_flops
        assert sum(part.attention_flops for part in parts) == whole.attention_flops
        assert sum(part.flops for part in parts) == whole.flops
        assert sum(part.tokens for part in parts) == whole.tokens
        assert sum(part.n_known for part in parts) == whole.n_known
        assert sum(part.seconds for part in parts) == pytest.approx(whole.seconds, rel=1e-9, abs=1e-3)


@given(RUNS)
def test_the_whole_is_what_the_runs_cost(runs: list[Paid]):
    total = ledger_of(runs).total()
    charges = [item for run in runs for item in run.cost.charges]
    assert total.parameter_flops == sum(item.parameter_flops or 0 for item in charges)
    assert total.tokens == sum(item.tokens for item in charges)
    assert total.seconds == pytest.approx(sum(run.cost.seconds for run in runs), rel=1e-6, abs=1e-2)
    assert total.gpu_seconds == pytest.approx(sum(run.cost.gpu_seconds for run in runs), rel=1e-6, abs=1e-1)


@given(RUNS, st.sets(st.sampled_from(GROUPS)))
def test_what_is_charged_and_what_is_not_are_everything(runs: list[Paid], charged: set):
    book = ledger_of(runs)
    on, off = book.only(charged=charged), book.only(charged=set(GROUPS) - charged)
    assert on.total().flops + off.total().flops == book.total().flops
    assert len(on.entries) + len(off.entries) == len(book.entries)
    assert book.only(DEVELOPMENT).total().flops + book.only(USE).total().flops == book.total().flops


@given(RUNS)
def test_attention_is_shown_and_can_be_left_out(runs: list[Paid]):
    book = ledger_of(runs)
    assert book.total(attention=False).flops == book.total().parameter_flops
    assert book.total(attention=False).attention_flops == 0


@given(RUNS, st.integers(0, 6), st.integers(0, 6))
def test_ledgers_together_have_what_they_share_once(runs: list[Paid], start: int, stop: int):
    whole = ledger_of(runs)
    overlapping = ledger_of(runs[: max(start, stop)]) + ledger_of(runs[min(start, stop) :])
    assert set(overlapping.entries) == set(whole.entries)
    assert overlapping.total().flops == whole.total().flops
    assert whole + whole == whole + Ledger() == whole


def paid(stage: str, *charges: Charge, folder: str = "run", **cost: float) -> Paid:
    return Paid(folder=folder, stage=stage, purpose=DEVELOPMENT, cost=Cost(charges=charges, **cost))


def test_a_run_that_is_there_twice_counts_once():
    run = paid("sample", charge("decode", 3, 6))
    assert ledger_of([run, run]).total().flops == 6


def test_seconds_that_no_charge_accounts_for_are_an_entry():
    book = ledger_of([paid("score", charge("policy forward", 3, 6, seconds=2.0), seconds=5.0, gpu_seconds=10.0)])
    assert [(entry.what, entry.group, entry.seconds) for entry in book.entries] == [
        ("policy forward", "scoring", 2.0), (UNTIMED, "scoring", 3.0),
    ]  # fmt: skip
    assert [entry.gpu_seconds for entry in book.entries] == [4.0, 6.0]  # two GPUs, all the while


def test_two_models_at_work_at_a_time_take_no_more_seconds_than_there_were():
    models = [charge(what, 3, 6, seconds=4.0) for what in ("policy forward", "reference forward")]
    book = ledger_of([paid("score", *models, seconds=5.0)])
    assert book.by("what")[UNTIMED].total().seconds == -3.0
    assert book.total().seconds == 5.0


def test_what_is_not_known_is_counted_and_not_taken_for_nothing():
    total = ledger_of([paid("sample", charge("decode", 3, None), charge("prefill", 1, 20))]).total()
    assert (total.flops, total.n_known, total.n_unknown) == (20, 1, 1)


def test_a_sum_of_which_nothing_more_is_known_goes_to_its_stage():
    (entry,) = ledger_of([Paid(folder="a", stage="train", purpose=USE, cost=Cost(trained_tokens=2, flops=7.0))]).entries
    assert (entry.group, entry.tokens, entry.parameter_flops, entry.attention_flops) == ("training", 2, 7, 0)


@pytest.mark.parametrize(
    ("stage", "what", "group"),
    [
        ("sample", "decode", "generation"),
        ("sample", "policy forward", "scoring"),  # sampling with early stopping scores too
        ("label", "decode", "annotation"),
        ("label", "scorer forward", "annotation"),
        ("label", "reference forward", "reference"),
        ("train", "KL estimate", "training"),
        ("train", "reference forward", "reference"),
        ("score", "reference forward", "reference"),
        ("select", "policy forward", "scoring"),
        ("grade", UNTIMED, "other"),
        ("score", "a plug-in's own", "scoring"),
    ],
)
def test_charges_belong_to_groups(stage: str, what: str, group: str):
    assert group_of(stage, what) == group


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
