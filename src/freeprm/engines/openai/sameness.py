"""Noticing a server that ignores the temperature: all samples of a problem come out the same."""

import warnings

from freeprm.engines.base import Sampled, SamplingParams

_ENOUGH = 20  # samples like the first one of their problem, and none unlike it


class Sameness:
    """Warns once, if the first samples all repeat each other."""

    def __init__(self, params: SamplingParams):
        self._first: dict[str, str] = {}
        self._temperature = params.temperature
        self._n_same = 0
        self._open = params.temperature > 0

    def see(self, sampled: Sampled) -> None:
        """Take a sample into account."""
        if not self._open:
            return
        before = self._first.setdefault(sampled.problem_id, sampled.text)
        if before is sampled.text:
            return
        self._n_same += before == sampled.text
        if before != sampled.text or self._n_same == _ENOUGH:
            self._open = False
            self._first.clear()
        if self._n_same == _ENOUGH:
            warnings.warn(
                f"{_ENOUGH} samples in turn are the same as the first one of their problem at temperature "
                f"{self._temperature:g}; the server may ignore it. transformers serve does, unless the model's "
                "generation_config.json has do_sample: true",
                stacklevel=3,
            )
