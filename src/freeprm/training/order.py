"""In which order examples are trained on, and which process reads which of them.

The order alone decides the examples of an optimisation step. So the losses of a run do not depend on how many processes
there are, nor on how a step's examples are dealt out to them.
"""

import math
import random
from collections.abc import Callable, Iterator, Sequence

from torch.utils.data import BatchSampler, Sampler

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


class Share(BatchSampler):
    """The batches of one of several processes: its share of each step, of about as many tokens as the others'.

    No batch is larger than `batch_size`, and all processes have as many batches. Where the last step of an epoch has
    too few examples for that, some are empty; no example comes twice.

    Args:
        sampler: the order, the same in all processes.
        tokens: of each example.
        batch_size: examples in a batch.
        n_batches: batches of a step, in each process.
        process, n_processes: whose share.
        n_steps_done: of the optimizer, so far. It tells the epoch, which the order depends on: what skips the batches
            of a run that is gone on from does not pass `set_epoch` on.
        drop_last: leave out the examples at the end that do not fill a batch in every process.
    """

    def __init__(
        self, sampler: Sampler[int], tokens: Sequence[int], *, batch_size: int, n_batches: int, process: int,
        n_processes: int, n_steps_done: Callable[[], int], drop_last: bool = False,
    ):  # fmt: skip
        self.sampler = sampler
        self._tokens, self._batch_size, self._n_batches = tokens, batch_size, n_batches
        self._process, self._n_processes, self._n_steps_done = process, n_processes, n_steps_done
        together = batch_size * n_processes
        self._n_used = len(tokens) // together * together if drop_last else len(tokens)

    def __len__(self) -> int:
        return math.ceil(self._n_used / (self._batch_size * self._n_processes))

    def __iter__(self) -> Iterator[list[int]]:
        if hasattr(self.sampler, "set_epoch"):
            self.sampler.set_epoch(self._n_steps_done() // math.ceil(len(self) / self._n_batches))
        order = list(self.sampler)[: self._n_used]
        size = self._batch_size * self._n_batches * self._n_processes
        for start in range(0, len(order), size):
            step = order[start : start + size]
            n_batches = math.ceil(len(step) / (self._batch_size * self._n_processes))
            shares = balanced(step, self._tokens, n_parts=self._n_processes, size=self._batch_size * n_batches)
            yield from balanced(shares[self._process], self._tokens, n_parts=n_batches, size=self._batch_size)


def balanced(items: Sequence[int], tokens: Sequence[int], *, n_parts: int, size: int) -> list[list[int]]:
    """Items in parts of at most `size` each, so that the largest part has few tokens.

    The largest item first, each goes to the smallest part that has room (Graham 1969, LPT, with bounded parts); or the
    items are dealt out like cards, where that is better.

    Args:
        items: at most `n_parts` times `size` indices.
        tokens: by index.

    Returns:
        The parts, some of them empty if there are fewer items.
    """
    parts: list[list[int]] = [[] for _ in range(n_parts)]
    totals = [0] * n_parts
    for item in sorted(items, key=lambda index: -tokens[index]):
        smallest = min((part for part in range(n_parts) if len(parts[part]) < size), key=lambda part: totals[part])
        parts[smallest].append(item)
        totals[smallest] += tokens[item]
    dealt = [list(items[part::n_parts]) for part in range(n_parts)]
    largest = max(sum(tokens[item] for item in part) for part in dealt)
    return parts if max(totals) <= largest else dealt
