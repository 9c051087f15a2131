"""Texts with special tokens, as trainers and clients of other servers have them, as rollouts."""

from collections.abc import Sequence

from freeprm.errors import ConfigError, DataError
from freeprm.models.prompts import take_apart
from freeprm.scorers.base import Scorer
from freeprm.types import Rollout


def rollouts_of_texts(scorer: Scorer, texts: Sequence[str], prompts: Sequence[str | None]) -> list[Rollout]:
    """The last response of each conversation, as it stands.

    Args:
        scorer: gives the tokenizer.
        texts: conversations with special tokens.
        prompts: what comes before each response, where it is known.

    Raises:
        ConfigError: the scorer writes around the question itself.
        DataError: a text without response; names it.
    """
    tokenizer = scorer.tokenizer
    if tokenizer is None:
        raise ConfigError(
            f"{scorer.about.name}: writes around the question itself, and takes no text with a template; give it the "
            "question and the response as messages"
        )
    rollouts = []
    for index, (text, prompt) in enumerate(zip(texts, prompts, strict=True)):
        try:
            found = take_apart(tokenizer, text, asked=prompt)
        except DataError as error:
            raise DataError(f"text {index}: {error}") from error
        rollouts.append(
            Rollout(
                problem_id="text", sample_idx=index, prompt=found.prompt, response=found.response,
                truncated=found.truncated,
            )
        )  # fmt: skip
    return rollouts
