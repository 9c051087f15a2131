"""What may be asked of an engine."""

import pytest

from freeprm.engines.base import Sampled, SamplingParams
from freeprm.errors import ConfigError


@pytest.mark.parametrize(
    ("setting", "value"),
    [("temperature", -0.1), ("top_p", 0.0), ("top_p", 1.1), ("max_new_tokens", 0), ("stop", ("x", ""))],
)
def test_params_out_of_range_are_refused_by_name(setting: str, value: object):
    with pytest.raises(ConfigError, match=setting):
        SamplingParams(**{setting: value})


@pytest.mark.parametrize(
    ("reason", "truncated"), [("end", False), ("stop", False), ("length", True), ("context", True)]
)
def test_a_sample_is_truncated_where_nothing_ended_it(reason: str, truncated: bool):
    assert Sampled(problem_id="p", sample_idx=0, text="ab", stop_reason=reason).truncated is truncated
