import threading

import pytest
import torch
from torch import nn

import tiny
from freeprm.models.encoding import encode
from freeprm.models.loading import load_backbone
from freeprm.models.logprobs import score_tokens
from freeprm.scorers._two_models import Advance, are_apart, both
from patience import PATIENCE


class Event(threading.Event):
    """One that fails a test rather than to wait for ever."""

    def awaited(self) -> bool:
        return self.wait(timeout=PATIENCE)


def until_ended(begun: Event, tell: Advance) -> None:
    """A pass of very many batches."""
    begun.set()
    for _ in range(int(100 * PATIENCE)):
        tell(1, 1)
        threading.Event().wait(0.01)
    raise AssertionError("nobody ended this pass")


def test_two_models_give_the_same_numbers_side_by_side_as_one_by_one(tmp_path):
    models = [load_backbone(str(tiny.save(tmp_path / str(seed), seed=seed))) for seed in (0, 1)]
    encoded = encode(models[0].tokenizer, tiny.rollouts(5))

    def run(*, at_once: bool) -> tuple[list[torch.Tensor], list[tuple[int, int]]]:
        told: list[tuple[int, int]] = []
        ours, theirs = both(
            lambda tell: score_tokens(models[0].model, encoded, token_budget=200, advance=tell),
            lambda tell: score_tokens(models[1].model, encoded, token_budget=200, advance=tell),
            advance=lambda *batch: told.append(batch),
            at_once=at_once,
        )
        return [*ours, *theirs], sorted(told)

    together, one_by_one = run(at_once=True), run(at_once=False)
    assert together[1] == one_by_one[1]
    assert len(together[1]) > 2  # so there were batches of both to take turns
    for a, b in zip(together[0], one_by_one[0], strict=True):
        assert torch.equal(a, b)


def test_both_are_at_work_at_the_same_time():
    first, second = Event(), Event()

    def begin(mine: Event, others: Event) -> bool:
        mine.set()
        return others.awaited()

    pair = both(
        lambda tell: begin(first, second), lambda tell: begin(second, first), advance=lambda *batch: None, at_once=True
    )
    assert pair == (True, True)


def test_one_by_one_the_second_begins_when_the_first_is_done():
    order = []
    both(lambda tell: order.append(1), lambda tell: order.append(2), advance=lambda *batch: None, at_once=False)
    assert order == [1, 2]


@pytest.mark.parametrize("error", [ValueError("the first"), KeyboardInterrupt()])
def test_an_error_of_the_first_ends_the_second_and_is_raised(error):
    begun = Event()

    def fails(tell: Advance) -> None:
        assert begun.awaited()
        raise error

    with pytest.raises(type(error)) as raised:
        both(fails, lambda tell: until_ended(begun, tell), advance=lambda *batch: None, at_once=True)
    assert raised.value is error


def test_an_error_of_the_second_ends_the_first_and_is_raised():
    begun = Event()

    def fails(tell: Advance) -> None:
        assert begun.awaited()
        raise ValueError("the second")

    with pytest.raises(ValueError, match="the second"):
        both(lambda tell: until_ended(begun, tell), fails, advance=lambda *batch: None, at_once=True)


def test_an_error_of_the_second_is_raised_where_the_first_is_done():
    def fails(tell: Advance) -> None:
        raise ValueError("the second")

    with pytest.raises(ValueError, match="the second"):
        both(lambda tell: 1, fails, advance=lambda *batch: None, at_once=True)


def test_models_on_different_devices_are_apart():
    here, there = nn.Linear(1, 1), nn.Linear(1, 1, device="meta")
    assert not are_apart(here, nn.Linear(1, 1))
    assert are_apart(here, there)
