"""Graded rollouts as training examples: groups of encoded responses with all that their rewards are formed of."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from freeprm.models.encoding import Encoded, Ints
from freeprm.training.steps import TokenSteps
from freeprm.types import Group, Rollout


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A group as it is trained on: G responses to one prompt."""

    encoded: tuple[Encoded, ...]
    labels: tuple[bool, ...]
    """(G,) True where the final answer is right."""
    ref_logps: tuple[Tensor, ...] = ()
    """G tensors (T,); zeros where log-ratios go without reference; none where values are read."""
    places: tuple[Ints, ...] = ()
    """G arrays: the tokens of a response after which its values are read; none where log-ratios are."""
    steps: tuple[TokenSteps, ...] = ()
    """G, where the objective looks at steps."""
    mismatched: tuple[Encoded, ...] = ()
    """This prompt with responses to other ones, for the KL estimate of KTO."""
    mismatched_ref_logps: tuple[Tensor, ...] = ()

    @property
    def n_pairs(self) -> int:
        """Pairs of a right and a wrong response."""
        return sum(self.labels) * (len(self.labels) - sum(self.labels))


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Examples side by side, B responses in all; what the collator gives the trainer."""

    encoded: list[Encoded]
    ref_logps: Tensor
    """(T_total,); nothing where values are read."""
    places: list[Ints]
    """B, as in `Example`; nothing where log-ratios are."""
    rows: Tensor
    """(T_total,) the response of each token, or of each place that is read."""
    labels: Tensor
    """(B,) bool"""
    groups: Tensor
    """(B,)"""
    steps: Tensor | None
    """(T_total,) see `RewardBatch`; nothing where the objective does not look at steps."""
    step_labels: Tensor | None
    """(S_total,) see `RewardBatch`."""
    mismatched: list[Encoded]
    """M, where the objective needs a KL."""
    mismatched_ref_logps: Tensor
    """(M_total,) of their tokens."""
    kl: Tensor | None = None
    """() beta * KL(pi_phi || pi_ref) of the whole optimisation step, where the objective needs it."""
    means: Tensor | None = None
    """(S,) of the whole optimisation step, where the objective needs them."""


class Examples(Dataset[Example]):
    """Examples by index."""

    def __init__(self, examples: Sequence[Example]):
        self._examples = examples

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index: int) -> Example:
        return self._examples[index]

    def lengths(self) -> list[int]:
        """Tokens of each example's longest response with its prompt."""
        return [max(len(item.ids) for item in example.encoded) for example in self._examples]

    def longest(self) -> int:
        """Tokens of the longest response with its prompt, mismatched ones too; 0 without examples."""
        others = [len(item.ids) for example in self._examples for item in example.mismatched]
        return max([*self.lengths(), *others], default=0)


def mismatches(groups: Sequence[Group], *, seed: int) -> list[Rollout]:
    """For each response, its prompt with a response to some other prompt; nothing where there is only one prompt.

    Drawn once for the whole data, so the pairing does not depend on batches, and cannot match a response to its own
    prompt.
    """
    if len({group.problem_id for group in groups}) < 2:
        return []
    rng = random.Random(f"mismatch/{seed}")
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    drawn = []
    for own in rollouts:
        other = own
        while other.problem_id == own.problem_id:
            other = rng.choice(rollouts)
        drawn.append(replace(other, problem_id=own.problem_id, prompt=own.prompt, correct=None))
    return drawn


def collate(examples: Sequence[Example]) -> dict[str, Batch]:
    """One batch of examples; padding is the log-probability engine's business."""
    encoded = [item for example in examples for item in example.encoded]
    places = [own for example in examples for own in example.places]
    steps = [own for example in examples for own in example.steps]
    lengths = torch.tensor([len(own) for own in places] or [item.n_response for item in encoded])
    sizes = torch.tensor([len(example.encoded) for example in examples])
    read = places or [np.arange(item.n_response, dtype=np.int32) for item in encoded]
    batch = Batch(
        encoded=encoded,
        ref_logps=_joined([logps for example in examples for logps in example.ref_logps]),
        places=places,
        rows=torch.repeat_interleave(torch.arange(len(encoded)), lengths),
        labels=torch.tensor([label for example in examples for label in example.labels]),
        groups=torch.repeat_interleave(torch.arange(len(examples)), sizes),
        steps=_numbered(steps, read) if steps else None,
        step_labels=torch.from_numpy(np.concatenate([own.labels for own in steps])) if steps else None,
        mismatched=[item for example in examples for item in example.mismatched],
        mismatched_ref_logps=_joined([logps for example in examples for logps in example.mismatched_ref_logps]),
    )
    return {"batch": batch}


def _numbered(steps: Sequence[TokenSteps], read: Sequence[Ints]) -> Tensor:
    """(T_total,) the step of each token that is read, steps being counted through all responses."""
    parts, before = [], 0
    for own, tokens in zip(steps, read, strict=True):
        parts.append(before + np.searchsorted(own.ends, tokens))  # the first step that ends at the token or after it
        before += len(own.ends)
    return torch.from_numpy(np.concatenate(parts))


def _joined(parts: Sequence[Tensor]) -> Tensor:
    return torch.cat(list(parts)) if parts else torch.empty(0)
