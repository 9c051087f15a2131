"""The order of examples that wastes little on padding: steps of similar length, themselves in random order."""

import random
from collections.abc import Iterator, Sequence

from torch.utils.data import Sampler

_WINDOW = 4  # steps that are sorted together; 8 pad 4 % less, but their steps are less alike


class SimilarLengths(Sampler[int]):
    """Shuffles, sorts each few steps' worth by length, and shuffles the steps; another order each epoch.

    Transformers' own sampler leaves long stretches of training in order of length.

    Args:
        lengths: of the examples.
        step_size: examples in one optimisation step, over all processes.
        seed: of the order.
    """

    def __init__(self, lengths: Sequence[int], *, step_size: int, seed: int):
        self._lengths, self._step_size, self._seed, self._epoch = lengths, step_size, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the trainer, so that a resumed run has the order of an uninterrupted one."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        rng = random.Random(f"{self._seed}/{self._epoch}")
        order = list(range(len(self)))
        rng.shuffle(order)
        window = _WINDOW * self._step_size
        parts = [order[start : start + window] for start in range(0, len(order), window)]
        order = [index for part in parts for index in sorted(part, key=lambda index: self._lengths[index])]
        whole = len(order) // self._step_size * self._step_size
        steps = [order[start : start + self._step_size] for start in range(0, whole, self._step_size)]
        rng.shuffle(steps)
        yield from (index for step in [*steps, order[whole:]] for index in step)
