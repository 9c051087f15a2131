"""Eurus-RM: one unbounded score at the end of plain text.

    [INST] {question} [\\INST] {response}

The second bracket has a backslash, not a slash, as in the card's code, which then prints 47.44 between its two
examples. llm-reasoners writes `[/INST]`; this file follows the card. The tokenizer adds the beginning-of-sequence
token, nothing ends the text, and the score is read at the last token.

The repository's class is remote code; its one layer is read here without it.

Source: the card of openbmb/Eurus-RM-7b and modeling_eurus_rm.py beside it; Yuan et al. 2024, arXiv:2404.02078.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from freeprm.models.heads import Layout, RegressionHead
from freeprm.models.scoring_input import ScoringInput, question, response_name, tokenise
from freeprm.scorers._released import ReleasedRecipe, unchanged
from freeprm.types import Rollout, Span


@dataclass(frozen=True, slots=True, kw_only=True)
class WholeText:
    """Question and response as plain text, read at its last token."""

    before: str
    between: str

    def write(self, tokenizer: PreTrainedTokenizerBase, rollout: Rollout, steps: Sequence[Span]) -> ScoringInput:
        """The text, read at the last token."""
        text = self.before + question(rollout) + self.between + rollout.response
        ids = tokenise(tokenizer, text, special=True).ids
        return ScoringInput(name=response_name(rollout), text=text, ids=ids, positions=(len(ids) - 1,))


PLUGIN = ReleasedRecipe(
    name="eurus_rm",
    released=("openbmb/Eurus-RM-7b",),
    form=WholeText(before="[INST] ", between=r" [\INST] "),  # card
    tokens={},
    head=Layout(architectures=("EurusRewardModel",), build=RegressionHead, base_type="mistral"),
    normalise=unchanged,  # model(**inputs).item() (card)
    kind="unbounded",
    splitter=None,
    aggregation=None,
)
