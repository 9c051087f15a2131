"""Math-Shepherd's process reward model: a language model that predicts + or - at a marker after each step.

    {question} Step 1: ... ки
    Step 2: ... ки

The score of a step is softmax(logits of + and -)[+] AT its marker, as in its training and its authors' code: one after
the step's last token. The marker is after the step's text and a space, before the whitespace that ends the step;
without the markers the scored text is the question, a space and the unchanged response.

Other projects: search-and-learn puts a system prompt before the question and cuts at blank lines; PRMBench adds
`Step i:` to steps without it. Here nothing is added to steps, although the model was trained on steps that begin so.

Source: the card of peiyi9979/math-shepherd-mistral-7b-prm; Wang et al. 2023, arXiv:2312.08935.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from freeprm.models.scoring_input import ScoringInput, position_of, question, response_name, tokenise
from freeprm.scorers._released import ReleasedRecipe, first_of_two, refuse_marker
from freeprm.types import Rollout, Span


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkedText:
    """Plain text with a marker after each step."""

    between: str
    """Between the question and the response."""
    before: str
    """Between a step and its marker."""
    marker: str
    token: int
    """The marker's id after `before`."""

    def write(self, tokenizer: PreTrainedTokenizerBase, rollout: Rollout, steps: Sequence[Span]) -> ScoringInput:
        """The question and the response with a marker after each step, read at the markers."""
        prompt, name = question(rollout), response_name(rollout)
        alone = re.compile(rf"(?<!\w){re.escape(self.marker)}(?!\w)")
        for where, text in (("prompt", prompt), ("response", rollout.response)):
            found = alone.search(text)
            refuse_marker(rollout, found.start() if found else None, marker=self.marker, where=where)
        text, marks = prompt + self.between, []
        for step in steps:
            whole = rollout.response[step.start : step.stop]
            text += whole.rstrip() + self.before
            marks.append(Span(len(text), len(text) + len(self.marker)))
            text += self.marker + whole[len(whole.rstrip()) :]
        tokens = tokenise(tokenizer, text, special=True)
        positions = tuple(position_of(tokens, mark, expected=self.token, name=name) for mark in marks)
        return ScoringInput(name=name, text=text, ids=tokens.ids, positions=positions, steps=tuple(steps))


PLUGIN = ReleasedRecipe(
    name="math_shepherd",
    released=("peiyi9979/math-shepherd-mistral-7b-prm",),
    # f"{question} {output}" with "... ки\nStep 2: ... ки" (card); `tokenizer.encode("ки")[-1]  # 12902` (card)
    form=MarkedText(between=" ", before=" ", marker="ки", token=12902),
    tokens={"ки": 12902, "+": 648, "-": 387},  # `tokenizer.encode("+ -")[1:]  # [648, 387]` (card)
    head=(648, 387),
    normalise=first_of_two,  # logits[:, :, [648, 387]].softmax(-1)[:, :, 0] where input_ids == 12902 (card)
    kind="probability",
    splitter="auto",  # its training data has a line a step, `Step 1:` and so on
    aggregation="min",  # arXiv:2312.08935, section 3.4
)
