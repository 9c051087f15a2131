"""What a cast to 16 bits leaves of what training did to a model.

A small learning rate moves weights by less than bfloat16 tells apart, so a policy that was trained in float32 may
be its reference again once both are cast:

    u = policy - reference        c = cast(policy) - cast(reference)
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import safe_open
from torch import Tensor

_AT_MOST = 1 << 26
"""Weights that are compared: a second or two, whatever the model's size."""


class UpdateKept(NamedTuple):
    """Of an update, once policy and reference are cast."""

    norm: float
    """|c| / |u|: 1 where nothing is lost; near 0 where the two are the same model again."""
    cosine: float
    """Of the angle between c and u; 0 where nothing is left."""


def kept_of_update(policy: Path, reference: Path, dtype: torch.dtype) -> UpdateKept | None:
    """How large the update from reference to policy is, and which way it points, in another dtype.

    Args:
        policy: its folder.
        reference: of the same architecture; its folder.
        dtype: what both are cast to.

    Returns:
        Measured on the first rows of each matrix, of 67 million weights in all. None where the policy is not stored in
        float32 safetensors of the reference's names, or is the reference.
    """
    sums = torch.zeros(3, dtype=torch.float64)  # u.u, c.c, u.c
    for before, after in _pairs(policy, reference):
        update = after.double() - before.double()
        cast = after.to(dtype).double() - before.to(dtype).double()
        sums += torch.stack([update.square().sum(), cast.square().sum(), (update * cast).sum()])
    moved, left = sums[:2].sqrt().tolist()
    if not moved:
        return None
    return UpdateKept(norm=left / moved, cosine=float(sums[2]) / (moved * left) if left else 0.0)


def _pairs(policy: Path, reference: Path) -> Iterator[tuple[Tensor, Tensor]]:
    """Weights before and after training that are float32 after it."""
    ours, theirs = _places(policy), _places(reference)
    shapes: dict[str, list[int]] = {}
    for name in sorted(ours.keys() & theirs.keys()):
        with safe_open(ours[name], "pt") as file:
            kept = file.get_slice(name)
            if kept.get_dtype() == "F32":
                shapes[name] = kept.get_shape()
    share = min(1.0, _AT_MOST / max(1, sum(torch.Size(shape).numel() for shape in shapes.values())))
    for name, shape in shapes.items():
        with safe_open(theirs[name], "pt") as before, safe_open(ours[name], "pt") as after:
            if not shape or before.get_slice(name).get_shape() != shape:
                continue
            n_rows = max(1, int(share * shape[0]))
            yield before.get_slice(name)[:n_rows], after.get_slice(name)[:n_rows]


def _places(folder: Path) -> dict[str, Path]:
    """The file that each weight of a whole model is in; none for adapters and for pickles."""
    places: dict[str, Path] = {}
    for path in sorted(folder.glob("model*.safetensors")):
        with safe_open(path, "pt") as file:
            places.update(dict.fromkeys(file.keys(), path))
    return places
