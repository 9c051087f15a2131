from collections import Counter

from freeprm.core.draws import draw, order, sample


def key(item):
    return (item,)


def test_a_draw_depends_on_seed_purpose_and_key_and_on_nothing_else():
    drawn = {draw(seed, purpose, ("p", idx)) for seed in (0, 1) for purpose in ("a", "b") for idx in (0, 1)}
    assert len(drawn) == 8
    assert draw(1, "a", ("p", 0)) == draw(1, "a", ("p", 0))


def test_a_draw_is_the_same_in_every_release():
    # blake2b of b'[0, "responses", "p", 3]' with 16 bytes: what a data set of an earlier run was drawn with.
    import hashlib

    assert draw(0, "responses", ("p", 3)) == hashlib.blake2b(b'[0, "responses", "p", 3]', digest_size=16).digest()


def test_samples_are_nested_in_the_order_given_and_independent_of_it():
    items = list(range(50))
    few, more = (sample(items, count, key=key, seed=0, purpose="a") for count in (5, 20))
    assert set(few) < set(more)
    assert more == sorted(more)
    assert set(sample(items[::-1], 20, key=key, seed=0, purpose="a")) == set(more)
    assert sample(items, 60, key=key, seed=0, purpose="a") == items
    assert order(items, key=key, seed=0, purpose="a")[:5] == order(items[::-1], key=key, seed=0, purpose="a")[:5]


def test_samples_for_two_purposes_are_independent():
    # Half of 2,000 by one purpose, then half by another: 500 expected in both, standard deviation
    # sqrt(1000 * 1/4) * sqrt(1000/1999) = 11.2 (hypergeometric). Draws in common would give 0 or 1,000.
    items = list(range(2000))
    both = Counter(item for purpose in "ab" for item in sample(items, 1000, key=key, seed=0, purpose=purpose))
    assert abs(sum(count == 2 for count in both.values()) - 500) < 5 * 11.2
