"""Where the run folders of a comparison lie below its own folder."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Folders:
    """Places of a comparison; each stage resumes from its own."""

    out: Path

    def sampled(self, split: str) -> Path:
        """Rollouts as they were drawn; `split` is train, dev, or test-GENERATOR."""
        return self.out / "rollouts" / split

    def graded(self, split: str) -> Path:
        """The same with their outcome labels."""
        return self.out / "graded" / split

    def labels(self, name: str) -> Path:
        """The training rollouts with step labels."""
        return self.out / "labels" / name

    def model(self, method: str) -> Path:
        """What a method trained."""
        return self.out / "methods" / method / "model"

    def scores(self, method: str, split: str) -> Path:
        """A split's rollouts with a method's scores."""
        return self.out / "methods" / method / f"scores-{split}"

    def selection(self, method: str, split: str) -> Path:
        """What is chosen by those scores."""
        return self.out / "methods" / method / f"selection-{split}"

    def evaluation(self, method: str, split: str) -> Path:
        """How well those scores find the first error."""
        return self.out / "methods" / method / f"evaluation-{split}"

    def baseline(self, split: str) -> Path:
        """What is chosen without scores."""
        return self.out / "baselines" / f"selection-{split}"

    @property
    def reference(self) -> Path:
        """The reference's log-probabilities, for all methods."""
        return self.out / "reference"

    def log(self, name: str) -> Path:
        """What a worker printed while it made a method or labels."""
        return self.out / "logs" / f"{name}.log"


def test_split(generator: str) -> str:
    """The split of a generator's answers to the test problems."""
    return f"test-{generator}"
