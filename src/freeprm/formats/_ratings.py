"""PRM800K's ratings of steps, in three formats: 1 right, 0 neutral, -1 wrong, null not rated."""

from typing import Annotated, Any

from pydantic import PlainValidator

from freeprm.io.columns import Expected


def _rating(value: Any) -> int | None:
    if isinstance(value, bool) or value not in (-1, 0, 1, None):
        raise ValueError
    return None if value is None else int(value)


Rating = Annotated[int | None, PlainValidator(_rating), Expected("-1, 0, 1 or null")]


def label_of(rating: int | None, *, neutral: bool | None) -> bool | None:
    """The label of a step with this rating; `neutral` is the label of 0, or None."""
    return neutral if rating == 0 else None if rating is None else rating == 1


def rating_of(label: bool | None) -> int | None:
    """The rating of a step with this label."""
    return None if label is None else 1 if label else -1
