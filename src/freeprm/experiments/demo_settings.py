"""How large the demo is."""

from dataclasses import dataclass

FOUR = ("ce", "dpo", "kto", "nca")
"""The paper's objectives: what `all` stands for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoSettings:
    """Size of the demo."""

    solver: str = "base"
    """Which shipped solver generates, and is the reference."""
    objectives: tuple[str, ...] = ("ce",)
    train_problems: int = 1000
    train_samples: int = 8
    """Rollouts a training problem, as in the paper."""
    dev_problems: int = 100
    """For the thresholds of step-level evaluation; as many rollouts each as in training."""
    test_problems: int = 200
    test_samples: int = 64
    temperature: float = 0.8
    seed: int = 0
    """Of problems, samples and training: another seed is another experiment."""
