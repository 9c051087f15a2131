import json
from dataclasses import replace
from pathlib import Path

import pytest

import labelled
import stepped
import tiny
from freeprm.core.curation import Recipe
from freeprm.core.groups import Pair, n_pairs, pair
from freeprm.errors import ConfigError, DataError, RecordError
from freeprm.io.rollouts import rollout_row
from freeprm.objectives.ce import CE
from freeprm.objectives.dpo import DPO
from freeprm.objectives.step_ce import StepCE
from freeprm.objectives.step_kto import StepKTO
from freeprm.training.groups import divide, groups_of_pairs, read_graded, read_groups, source_paths
from freeprm.training.settings import TrainSettings
from freeprm.types import Group, Rollout, group_rollouts


def written(path: Path, rollouts, *more: str) -> Path:
    path.write_text("".join([json.dumps(rollout_row(rollout)) + "\n" for rollout in rollouts] + list(more)))
    return path


def test_sources_may_use_the_same_ids_and_what_is_skipped_says_where(tmp_path: Path):
    mine, other = (
        written(tmp_path / f"{name}.jsonl", tiny.rollouts(2, seed=seed), more)
        for name, seed, more in (("mine", 0, "{\n"), ("other", 1, "{\n"))
    )
    recipe = Recipe(mix={str(other): 0.5}, replace={str(other): 0.5})
    assert source_paths(recipe) == [other]
    read = read_graded([mine], recipe, columns=None, on_bad="skip")
    assert (read.name, [*read.sources]) == (str(mine), [str(other)])
    assert len(read.groups) == len(read.sources[str(other)]) == 2
    assert read.skipped == {"not valid JSON": 1, f"{other}: not valid JSON": 1}


def test_samples_that_two_scorers_scored_are_there_once(tmp_path: Path):
    rows = [{**rollout_row(rollout), "scorer": name} for name in "ab" for rollout in tiny.rollouts(1)]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    read = read_graded([path], Recipe(), columns=None, on_bad="raise")
    assert len(read.groups[0].rollouts) == 4
    assert read.skipped == {"again, with the scores of another scorer": 4}


def test_a_source_without_labels_is_refused(tmp_path: Path):
    mine = written(tmp_path / "mine.jsonl", tiny.rollouts(2))
    other = tmp_path / "other.jsonl"
    other.write_text('{"problem_id": "x", "prompt": "q", "response": "r"}\n')
    with pytest.raises(RecordError, match=r"other\.jsonl:1: correct: no such column"):
        read_graded([mine], Recipe(mix={str(other): 0.5}), columns=None, on_bad="raise")


def group(labels: str) -> Group:
    """One letter a response: `+` right, `-` wrong."""
    return group_rollouts(tiny.rollouts(1, labels=[label == "+" for label in labels]))[0]


def shapes(groups: list[Group]) -> list[str]:
    return ["".join("+" if rollout.correct else "-" for rollout in one.rollouts) for one in groups]


def test_a_small_group_stays_whole():
    groups, counts = divide([group("+-+-")], size=4, needs_pairs=True)
    assert groups[0].rollouts[0].correct
    assert len(groups[0].rollouts) == 4
    assert not counts


def test_a_large_group_is_divided_with_both_classes_in_each_part():
    groups, counts = divide([group("++++----")], size=4, needs_pairs=True)
    assert shapes(groups) == ["++--", "++--"]
    assert counts == {"pairs across the parts of divided groups": 16 - 8}


def test_a_part_of_one_class_is_left_out_where_pairs_are_needed_and_kept_where_not():
    groups, counts = divide([group("+---")], size=2, needs_pairs=True)
    assert shapes(groups) == ["+-"]
    assert counts["responses in parts of one class of divided groups"] == 2
    groups, counts = divide([group("+---")], size=2, needs_pairs=False)
    assert sum(len(one.rollouts) for one in groups) == 4
    assert not counts


@pytest.mark.parametrize("size", [1, 3, 5, 8])
def test_dividing_loses_no_response(size):
    groups, _ = divide([group("+--+-+---+")], size=size, needs_pairs=False)
    assert sorted(rollout.sample_idx for one in groups for rollout in one.rollouts) == list(range(10))
    assert max(len(one.rollouts) for one in groups) <= size


def read(path: Path, rollouts: list[Rollout], objective=CE, *, held_out=False, on_bad="raise", **settings):
    groups, counts, _ = read_groups(
        [written(path / "rows.jsonl", rollouts)], TrainSettings(model="m", **settings), objective(), columns=None,
        on_bad=on_bad, held_out=held_out,
    )  # fmt: skip
    return groups, counts


def test_groups_without_both_classes_are_counted_where_pairs_are_needed(tmp_path):
    rollouts = [*tiny.rollouts(3)[:8], *tiny.rollouts(3, labels=[True, True])[4:]]
    groups, counts = read(tmp_path, rollouts, DPO)
    assert [one.problem_id for one in groups] == ["p0", "p1"]
    assert counts == {
        "skipped: groups without a wrong response": 1,
        "skipped: responses in groups without a wrong response": 2,
    }
    groups, counts = read(tmp_path, rollouts, CE)
    assert len(groups) == 3
    assert not counts


@pytest.mark.parametrize("label", [True, False])
def test_data_of_one_class_is_refused(tmp_path, label):
    with pytest.raises(DataError, match="expected at least one right and one wrong"):
        read(tmp_path, tiny.rollouts(2, labels=[label, label]))


def test_data_without_a_pair_is_refused_where_pairs_are_needed(tmp_path):
    right, wrong = tiny.rollouts(2, labels=[True])[:1], tiny.rollouts(2, labels=[False])[1:]
    with pytest.raises(DataError, match="no pairs"):
        read(tmp_path, [*right, *wrong], DPO)


def test_groups_of_one_response_give_no_pairs(tmp_path):
    with pytest.raises(ConfigError, match="group_size: is 1; ce needs pairs"):
        read(tmp_path, tiny.rollouts(2), DPO, group_size=1)


def test_balancing_and_pairing_follow_the_settings(tmp_path):
    rollouts = tiny.rollouts(2, labels=[True, False, False, False])
    balanced, counts = read(tmp_path, rollouts, balance="instruction")
    assert [len(one.rollouts) for one in balanced] == [2, 2]
    assert counts == {"skipped: responses of a majority class": 4}
    paired, counts = read(tmp_path, rollouts, DPO, max_pairs=2)
    assert shapes(paired) == ["+--"] * 2
    assert counts == {"skipped: pairs above max_pairs": 2, "skipped: responses only in pairs above max_pairs": 2}


def test_responses_without_step_labels_are_left_out_before_anything_else_and_counted(tmp_path):
    made = stepped.rollouts(4)
    made[0] = replace(made[0], extra={})
    made[1] = replace(made[1], extra={**made[1].extra, "step_labels": [None, None]})
    groups, counts = read(tmp_path, made, StepCE, responses=3)
    assert [len(one.rollouts) for one in groups] == [2, 3, 3, 3]
    # The limit of 3 leaves out one of the 4 of each other group.
    assert counts == {
        "responses with step labels that came with the rows": 14,
        "skipped: responses without step labels": 2,
        "skipped: responses left out by subsampling": 3,
    }


def test_groups_of_one_class_serve_an_objective_on_steps(tmp_path):
    made = [rollout for rollout in stepped.rollouts(4) if rollout.correct == (rollout.problem_id in ("p0", "p1"))]
    groups, counts = read(tmp_path, made, StepKTO)
    assert len(groups) == 4
    assert set(counts) == {"responses with step labels that came with the rows"}


def test_step_labels_need_no_outcomes_and_imply_those_of_their_last_steps(tmp_path):
    made = [replace(rollout, correct=None) for rollout in stepped.rollouts(2)]
    made[0] = replace(made[0], extra={**made[0].extra, "step_labeler": "monte_carlo"})
    groups, counts = read(tmp_path, made, StepCE)
    last = {(one.problem_id, one.sample_idx): one.extra["step_labels"][-1] for one in made}
    assert {(one.problem_id, one.sample_idx): one.correct for each in groups for one in each.rollouts} == last
    assert counts == {
        "responses with step labels by monte_carlo": 1,
        "responses with step labels that came with the rows": 7,
        "responses whose outcome is that of their last labelled step": 8,
    }
    with pytest.raises(RecordError, match="correct: no such column"):
        read(tmp_path, made, CE)


def test_steps_may_have_labels_of_both_kinds_where_outcomes_have_not(tmp_path):
    wrong = [rollout for rollout in stepped.rollouts(4) if not rollout.correct]
    assert len(read(tmp_path, wrong, StepCE)[0]) == len({rollout.problem_id for rollout in wrong})


def test_step_labels_that_do_not_fit_stop_training_or_are_counted_under_skip(tmp_path):
    made = stepped.rollouts(2)
    made[5] = replace(made[5], extra={**made[5].extra, "step_labels": [True]})
    with pytest.raises(RecordError, match="problem 'p1', sample 1: step_labels: has 1 labels"):
        read(tmp_path, made, StepCE)
    groups, counts = read(tmp_path, made, StepCE, on_bad="skip")
    assert [len(one.rollouts) for one in groups] == [4, 3]
    assert counts == {
        "responses with step labels that came with the rows": 7,
        "skipped: another number of step_labels than steps": 1,
    }


def test_data_without_any_step_label_is_refused_with_the_column_that_was_looked_at(tmp_path):
    made = stepped.with_columns(stepped.rollouts(2), step_values=None)
    with pytest.raises(DataError, match=r"nothing to train on \(8 responses without step labels\).* 'step_values'"):
        read(tmp_path, made, StepCE, step_labels="soft")


def pairs_of(groups: list[Group]) -> list[tuple[str, int, int]]:
    """The pairs that training makes of groups, in order of their indices."""
    return sorted(
        (one.problem_id, chosen.sample_idx, rejected.sample_idx)
        for one in groups
        for chosen in one.rollouts
        for rejected in one.rollouts
        if chosen.correct and not rejected.correct
    )


def indices(pairs: list[Pair]) -> list[tuple[str, int, int]]:
    return sorted((one.chosen.problem_id, one.chosen.sample_idx, one.rejected.sample_idx) for one in pairs)


@pytest.mark.parametrize("pairing", ["cartesian", "one_to_one"])
@pytest.mark.parametrize("max_pairs", [None, 1, 5, 9])
@pytest.mark.parametrize("size", [2, 3, 8])
def test_groups_of_pairs_give_exactly_the_pairs_within_the_size(pairing, max_pairs, size):
    groups = [one for one in labelled.many_groups(3) if n_pairs(one)]
    pairs = pair(groups, pairing=pairing, max_pairs=max_pairs).pairs
    made = groups_of_pairs(pairs, size=size)
    assert pairs_of(made) == indices(pairs)
    assert max(len(one.rollouts) for one in made) <= size
    divided, lost = divide(made, size=size, needs_pairs=True)
    assert (pairs_of(divided), lost) == (indices(pairs), {})
    assert sum(len(one.rollouts) for one in made) <= 2 * len(pairs)


def test_pairs_that_share_a_response_share_a_group():
    pairs = pair([labelled.group("a", "+---"), labelled.group("b", "++--")], max_pairs=3).pairs
    a, *b = groups_of_pairs(pairs, size=8)
    assert len(a.rollouts) == 4
    assert [len(one.rollouts) for one in b] == [3, 2]  # of the four pairs of b one is missing


def test_what_is_held_out_is_balanced_but_neither_subsampled_nor_mixed(tmp_path):
    rollouts = tiny.rollouts(4, labels=[True, False, False, False])
    how = {"instructions": 0.5, "responses": 2, "deduplicate": 1e-9, "mix": {"nowhere": 0.5}, "balance": "instruction"}
    groups, _ = read(tmp_path, rollouts, held_out=True, **how)
    assert [len(one.rollouts) for one in groups] == [2] * 4


def test_other_sources_are_read_and_told_of(tmp_path):
    other = [replace(one, problem_id=f"other-{one.problem_id}", prompt=f"{one.prompt}!") for one in tiny.rollouts(4)]
    base = [replace(one, correct=False, response=f"base {one.response}") for one in tiny.rollouts(4)]
    paths = {name: written(tmp_path / f"{name}.jsonl", some) for name, some in (("other", other), ("base", base))}
    settings = TrainSettings(model="m", mix={str(paths["other"]): 0.5}, replace={str(paths["base"]): 0.25}, seed=1)
    inputs = [written(tmp_path / "rows.jsonl", tiny.rollouts(4))]
    made = read_groups(inputs, settings, CE(), columns=None, on_bad="raise")
    sources = {rollout.extra["source"] for group in made.groups for rollout in group.rollouts}
    assert sources == {str(path) for path in (*inputs, *paths.values())}
    assert [done.name.split()[0] for done in made.operations] == ["mix", "replace", "trainable"]
