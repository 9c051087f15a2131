"""Two ways of drawing a sample, compared: they may part only where rounding decides."""

import torch

from freeprm.engines.base import Sampled, SamplingParams
from freeprm.engines.hf.drawing import uniforms
from freeprm.engines.hf.writing import Draft
from freeprm.models.loading import Backbone

TOLERANCE = 1e-5
"""Of probability: how near to the border of two tokens a random number must be for rounding to decide."""


@torch.inference_mode()
def same_draw(backbone: Backbone, draft: Draft, whole: Sampled, params: SamplingParams) -> bool:
    """Whether a sample written piece by piece is, as far as it goes, the one drawn at once.

    It may be another (False) only behind a token that a random number chose from a border, or an equally likely one.
    """
    assert whole.token_ids is not None
    pairs = zip(draft.ids, whole.token_ids, strict=False)
    at = next((place for place, (one, other) in enumerate(pairs) if one != other), None)
    if at is None:
        assert len(draft.ids) <= len(whole.token_ids)
        return True
    ids = torch.tensor([[*draft.wanted.ids, *draft.ids[:at]]])
    logits = backbone.model(input_ids=ids).logits[0, -1].double()
    one, other = draft.ids[at], whole.token_ids[at]
    if params.temperature == 0:
        assert abs(logits[one] - logits[other]) < TOLERANCE
        return False
    assert params.top_p == 1, "a nucleus has borders of its own"
    cdf = (logits / params.temperature).softmax(-1).cumsum(-1)
    numbers = uniforms(draft.wanted.prompt, sample_idx=draft.sample_idx, seed=params.seed, count=at + 1)
    border = cdf[min(one, other)]
    assert abs(float(border) - float(numbers[at])) < TOLERANCE, f"{whole.problem_id}, {whole.sample_idx}: token {at}"
    return False
