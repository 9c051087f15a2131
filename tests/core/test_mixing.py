from collections import Counter
from dataclasses import replace

import pytest

from freeprm.core.groups import size
from freeprm.core.mixing import SAMPLE, marked, mix, question, replace_responses
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


OWN = [group(f"p{i}", "+-+-+-+-", prompt=f"{i}?", texts=[f"own {i} {j}" for j in range(8)]) for i in range(20)]
BASE = [group(f"p{i}", "--------", prompt=f"{i}?", texts=[f"base {i} {j}" for j in range(8)]) for i in range(20)]


def texts(kept):
    return {(each.problem_id, one.sample_idx): one.response for each in kept.groups for one in each.rollouts}


def replaced(kept):
    return {place: text for place, text in texts(kept).items() if text.startswith("base")}


@pytest.mark.parametrize(("share", "count"), [(0.25, 2), (0.5, 4), (0.75, 6), (1.0, 8)])
def test_the_share_of_each_problems_responses_is_replaced_and_their_number_stays(share, count):
    kept = replace_responses(OWN, {"base": BASE}, {"base": share})
    for each in kept.groups:
        assert sum(one.response.startswith("base") for one in each.rollouts) == count
        assert [one.sample_idx for one in each.rollouts] == list(range(8))
    assert kept.dropped == {"responses replaced by another source's": 20 * count}
    assert kept.noted == {"responses from base": 20 * count}


def test_a_larger_share_replaces_what_a_smaller_one_does_by_the_same():
    few, more = (replaced(replace_responses(OWN, {"base": BASE}, {"base": share})) for share in (0.25, 0.75))
    assert few.items() < more.items()


def test_replacing_depends_on_the_seed_and_not_on_the_order():
    mine = texts(replace_responses(OWN, {"base": BASE}, {"base": 0.5}))
    assert texts(replace_responses(shuffled(OWN), {"base": shuffled(BASE)}, {"base": 0.5})) == mine
    assert texts(replace_responses(OWN, {"base": BASE}, {"base": 0.5}, seed=1)) != mine


def test_a_response_comes_with_its_label_and_its_number_and_answers_the_problem_that_it_comes_to():
    own = group("ours", "+", prompt="1 + 1?", answer="2")
    base = group("theirs", "--", prompt="1 + 1?", answer="two", texts=["3", "4"])
    (one,) = replace_responses([own], {"base": [base]}, {"base": 1.0}).groups[0].rollouts
    assert (one.problem_id, one.sample_idx, one.answer, one.correct) == ("ours", 0, "2", False)
    assert one.response == base.rollouts[one.extra[SAMPLE]].response


def test_the_same_id_means_the_same_problem_only_with_the_same_answer():
    own = [group("1", "+", prompt="1 + 1?", answer="2"), group("2", "+", prompt="1 + 3?", answer="4")]
    base = [group("1", "-", prompt="Q: 1 + 1?\nA:", answer="2"), group("2", "-", prompt="5 + 5?", answer="10")]
    kept = replace_responses(own, {"base": base}, {"base": 1.0})
    assert [each.rollouts[0].correct for each in kept.groups] == [False, True]
    assert {each.rollouts[0].prompt for each in kept.groups} == {"1 + 1?", "1 + 3?"}
    assert kept.noted == {"responses from base": 1, "responses that base lacks": 1, "groups that base lacks": 1}


def test_where_the_other_source_has_too_few_the_rest_stay():
    base = [replace(each, rollouts=each.rollouts[:3]) for each in BASE[:10]]
    kept = replace_responses(OWN, {"base": base}, {"base": 0.5})
    assert len(replaced(kept)) == 10 * 3
    assert kept.noted == {
        "responses from base": 30, "responses that base lacks": 10 * 1 + 10 * 4, "groups that base lacks": 10,
    }  # fmt: skip
    came = kept.noted["responses from base"]
    assert_adds_up(replace(size(OWN), responses=size(OWN).responses + came), size(kept.groups), kept.dropped)


def test_two_sources_replace_different_responses():
    other = [replace(each, rollouts=tuple(replace(r, response="other") for r in each.rollouts)) for each in BASE]
    kept = replace_responses(OWN, {"base": BASE, "other": other}, {"base": 0.25, "other": 0.5})
    for each in kept.groups:
        firsts = [one.response.split()[0] for one in each.rollouts]
        assert [firsts.count(name) for name in ("own", "base", "other")] == [2, 2, 4]
    assert members(kept.groups) == members(OWN)


def test_shares_above_one_and_sources_without_a_problem_in_common_are_refused():
    with pytest.raises(ConfigError, match=r"replace: the shares add up to 1\.2"):
        replace_responses(OWN, {"base": BASE, "other": BASE}, {"base": 0.6, "other": 0.6})
    with pytest.raises(DataError, match="elsewhere has no response to any of 20 problems"):
        replace_responses(OWN, {"elsewhere": [group("x", "+", prompt="x?")]}, {"elsewhere": 0.5})
