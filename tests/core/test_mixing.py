from collections import Counter
from dataclasses import replace

import pytest

from freeprm.core.graded import size
from freeprm.core.mixing import marked, mix, question
from freeprm.errors import ConfigError, DataError
from labelled import assert_adds_up, group, members, shuffled


def source(name, count, labels="+-"):
    return [group(f"{name}{i}", labels, prompt=f"{name} {i}?") for i in range(count)]


def counts_of(kept):
    return Counter(each.problem_id.rstrip("0123456789") for each in kept.groups)


@pytest.mark.parametrize(
    ("sizes", "shares", "expected"),
    [
        ((70, 30), {"b": 0.3}, (70, 30)),
        ((70, 15), {"b": 0.3}, (35, 15)),  # 15 problems are 30 % of 50
        ((7, 300), {"b": 0.3}, (7, 3)),
        ((10, 10, 10), {"b": 0.25, "c": 0.25}, (10, 5, 5)),
        ((100, 100), {"b": 0.9}, (11, 100)),  # 111 at most: 100 / 0.9 = 111.1, of which 11.1 from a
    ],
)
def test_a_mixture_has_its_shares_to_a_problem_and_is_as_large_as_the_sources_allow(sizes, shares, expected):
    a, *others = (source(name, count) for name, count in zip("abc", sizes, strict=False))
    kept = mix(a, dict(zip("bc", others, strict=False)), shares)
    assert tuple(counts_of(kept)[name] for name in "abc"[: len(sizes)]) == expected
    assert_adds_up(sum(map(size, others), start=size(a)), size(kept.groups), kept.dropped)
    assert kept.noted == {f"groups from {name}": n for name, n in zip("bc", expected[1:], strict=False)}


def test_a_mixture_does_not_depend_on_the_order_of_its_sources_rows_but_on_the_seed():
    a, b = source("a", 40), source("b", 40)
    drawn = members(mix(a, {"b": b}, {"b": 0.2}).groups)
    assert members(mix(shuffled(a), {"b": shuffled(b)}, {"b": 0.2}).groups) == drawn
    assert members(mix(a, {"b": b}, {"b": 0.2}, seed=1).groups) != drawn


def test_a_problem_of_two_sources_is_there_once_and_counted():
    a, b = source("a", 6), [*source("b", 4), replace(source("a", 1)[0], problem_id="same prompt")]
    kept = mix(a, {"b": b}, {"b": 0.4})
    assert counts_of(kept) == {"a": 6, "b": 4}
    assert kept.dropped["groups of a problem that an earlier source has"] == 1
    assert kept.dropped["responses to a problem that an earlier source has"] == 2


def test_another_problem_under_a_taken_id_is_named_after_its_source():
    a = [group(str(i), "+-", prompt=f"a {i}?") for i in range(4)]
    b = [group(str(i), "+-", prompt=f"b {i}?") for i in range(4)]
    kept = mix(a, {"runs/b": b}, {"runs/b": 0.5})
    assert [each.problem_id for each in kept.groups] == ["0", "1", "2", "3", *(f"runs/b/{i}" for i in range(4))]
    assert all(rollout.problem_id == each.problem_id for each in kept.groups for rollout in each.rollouts)


def test_a_conversation_of_one_question_asks_the_same_as_its_text():
    assert question("1 + 1?") == question(({"role": "user", "content": "1 + 1?"},))
    assert question("1 + 1?") != question(({"role": "system", "content": "1 + 1?"},))


def test_provenance_stands_beside_a_column_of_that_name():
    rollout = replace(group("a", "+").rollouts[0], extra={"level": 3, "source": "aops"})
    assert marked(rollout, "runs/a").extra == {"level": 3, "source": "runs/a", "source_source": "aops"}


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ({"b": 0.0}, "mix: b has a share of 0"),
        ({"b": 1.0}, "mix: the shares add up to 1; the inputs have what is left"),
        ({"b": 0.7, "c": 0.7}, r"mix: the shares add up to 1\.4; expected 1 at most"),
    ],
)
def test_shares_that_are_none_are_refused(shares, message):
    with pytest.raises(ConfigError, match=message):
        mix(source("a", 4), {"b": source("b", 4), "c": source("c", 4)}, shares)


def test_a_source_too_small_for_its_share_is_refused():
    with pytest.raises(DataError, match=r"\[4, 200\] problems cannot be mixed"):
        mix(source("a", 4), {"b": source("b", 200)}, {"b": 0.01})
