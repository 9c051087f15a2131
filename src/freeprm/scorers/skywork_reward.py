"""Skywork-Reward: one unbounded score at the end of a conversation.

The conversation is rendered by the model's chat template, which has the beginning-of-sequence token; the text is
tokenised without another one (the card warns of the second). The score is read at the last token. The authors' class
takes the last token that is not padding, which is an earlier one if the padding is `<|eot_id|>`.

Any `...ForSequenceClassification` with one label and a chat template is read so, Skywork-Reward-V2 included.

Source: the card of Skywork/Skywork-Reward-Llama-3.1-8B; Liu et al. 2024, arXiv:2410.18451.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from freeprm.io.conversations import split_turn
from freeprm.models.heads import Layout, ScoreHead
from freeprm.models.scoring_input import ScoringInput, render, response_name, tokenise
from freeprm.scorers._released import ReleasedRecipe, unchanged
from freeprm.types import Message, Rollout, Span


@dataclass(frozen=True, slots=True, kw_only=True)
class WholeTurn:
    """A conversation, read at its last token."""

    date: str | None
    """Default date of Llama 3.1's template."""

    def write(self, tokenizer: PreTrainedTokenizerBase, rollout: Rollout, steps: Sequence[Span]) -> ScoringInput:
        """The conversation, read at the last token."""
        text = render(tokenizer, conversation(rollout), date=self.date)
        ids = tokenise(tokenizer, text, special=False).ids
        return ScoringInput(name=response_name(rollout), text=text, ids=ids, positions=(len(ids) - 1,))


def conversation(rollout: Rollout) -> list[Message]:
    """The prompt's turns and the response, which continues a final assistant message."""
    past, begun = split_turn(rollout.prompt)
    return [*past, {"role": "assistant", "content": (begun or "") + rollout.response}]


PLUGIN = ReleasedRecipe(
    name="skywork_reward",
    released=("Skywork/Skywork-Reward-Llama-3.1-8B", "Skywork/Skywork-Reward-Llama-3.1-8B-v0.2"),
    form=WholeTurn(date="26 Jul 2024"),  # Llama 3.1's tokenizer_config.json: date_string if not defined
    tokens={},  # whatever the template writes
    head=Layout(
        architectures=("*ForSequenceClassification",), build=ScoreHead, auto_class="AutoModelForSequenceClassification"
    ),
    normalise=unchanged,  # rm(**conv_tokenized).logits[0][0] (card)
    kind="unbounded",
    splitter=None,
    aggregation=None,
)
