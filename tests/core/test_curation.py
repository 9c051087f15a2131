import json
from dataclasses import asdict, replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from freeprm.core.curation import Recipe, curate, make_pairs, recalled, recorded
from freeprm.core.graded import size
from freeprm.core.mixing import SOURCE
from labelled import assert_adds_up, group, labels_of, many_groups, members, shuffled

EVERYTHING = Recipe(
    mix={"b": 0.25}, replace={"base": 0.5}, deduplicate=0.8, instructions=0.75, responses=6, balance="dataset",
    pairing="one_to_one", max_pairs=2, seed=3,
)  # fmt: skip


def sources():
    """Other problems to mix in, and other responses to the same problems."""
    others = [group(f"b{i}", "+-+-", prompt=f"b{i}") for i in range(20)]
    base = [
        replace(each, rollouts=tuple(replace(r, correct=False, response=f"base {r.response}") for r in each.rollouts))
        for each in many_groups()
    ]
    return {"b": others, "base": base}


def test_without_a_word_said_only_what_cannot_be_used_is_left_out():
    curated = curate(many_groups(), Recipe(), needs_pairs=False)
    assert [done.name for done in curated.operations] == ["trainable"]
    assert members(curated.groups) == {
        (one.problem_id, one.sample_idx) for each in many_groups() for one in each.rollouts if one.correct is not None
    }
    assert not any(SOURCE in one.extra for each in curated.groups for one in each.rollouts)


def test_operations_come_in_their_order_each_from_what_the_one_before_left():
    curated = curate(many_groups(), EVERYTHING, sources=sources(), needs_pairs=True)
    paired = make_pairs(curated.groups, EVERYTHING)
    done = [*curated.operations, paired.operation]
    assert [one.name for one in done] == [
        "mix b 0.25", "replace base 0.5", "deduplicate 0.8", "instructions 0.75", "responses 6", "trainable",
        "balance dataset", "pair one_to_one, at most 2",
    ]  # fmt: skip
    assert done[0].before == size(many_groups()) + size(sources()["b"])
    assert all(one.after == after.before for one, after in pairwise(done))
    assert done[-2].after == size(curated.groups)
    assert done[-1].after.pairs == len(paired.pairs)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 50),
    deduplicate=st.none() | st.sampled_from([0.1, 1.0]),
    instructions=st.sampled_from([0.5, 1.0]),
    responses=st.none() | st.integers(4, 8),
    balance=st.sampled_from(["none", "dataset", "instruction"]),
    pairing=st.sampled_from(["cartesian", "one_to_one"]),
    max_pairs=st.none() | st.integers(1, 3),
    mixed=st.booleans(),
)
def test_every_operation_adds_up_and_none_depends_on_the_order(mixed, seed, **how):
    recipe = Recipe(seed=seed, mix={"b": 0.25} if mixed else {}, **how)
    groups, other = many_groups(seed % 4), {"b": sources()["b"]}
    mine = curate(groups, recipe, sources=other, needs_pairs=True)
    theirs = curate(shuffled(groups), recipe, sources={"b": shuffled(other["b"])}, needs_pairs=True)
    assert members(mine.groups) == members(theirs.groups)
    assert mine.operations == theirs.operations
    paired, again = make_pairs(mine.groups, recipe), make_pairs(theirs.groups, recipe)
    assert paired.operation == again.operation
    for done in mine.operations:
        assert_adds_up(done.before, done.after, done.left_out)
    last = paired.operation
    assert_adds_up(last.before, last.after, last.left_out, pairs=True)


def test_balance_is_of_what_all_else_left():
    counts = labels_of(curate(many_groups(), EVERYTHING, sources=sources(), needs_pairs=True).groups)
    assert counts[True] == counts[False] > 0


def test_rollouts_tell_their_source_where_there_are_several():
    recipe = replace(EVERYTHING, instructions=1.0, responses=None, balance="none")
    curated = curate(many_groups(), recipe, sources=sources(), name="runs/a", needs_pairs=False)
    by_source = {one.extra[SOURCE]: one for each in curated.groups for one in each.rollouts}
    assert {*by_source} == {"runs/a", "b", "base"}
    assert by_source["b"].problem_id.startswith("b")
    assert by_source["base"].response.startswith("base")


@pytest.mark.parametrize("counts", [{}, {"pairs": 3, "skipped: not valid JSON": 1}])
def test_operations_come_back_from_a_manifest_as_they_were(counts):
    operations = curate(many_groups(), EVERYTHING, sources=sources(), needs_pairs=True).operations
    kept = json.loads(json.dumps(recorded(counts, operations)))
    assert recalled(kept) == (counts, operations)
    assert recalled(counts) == (counts, [])
    assert asdict(EVERYTHING)["mix"] == {"b": 0.25}
