"""What models work on, by name, as a run's cost records it."""

import torch

from freeprm.io.manifest import CPU


def device_name(device: torch.device | str | None = None) -> str:
    """`NVIDIA H200` of a CUDA device, else its type; of the device that models are loaded to, if none is given."""
    chosen = torch.device(device or ("cuda" if torch.cuda.is_available() else CPU))
    return torch.cuda.get_device_name(chosen) if chosen.type == "cuda" else chosen.type
