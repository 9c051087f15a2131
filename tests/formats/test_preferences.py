"""Preferences, whichever way rows say them; and prompts as texts and messages."""

from pathlib import Path
from typing import Any

import pytest

from freeprm.errors import DataError, RecordError
from freeprm.formats import trl_unpaired
from freeprm.formats._preferences import PreferenceRow, read_preference
from freeprm.io.conversations import as_messages, as_text
from freeprm.io.rows import Source

USER = {"role": "user", "content": "What is 2 + 3?"}
RIGHT, WRONG = ({"role": "assistant", "content": text} for text in ("It is 5.", "It is 6."))
AGAIN = {"role": "user", "content": "Sure?"}


HERE = Source(Path("rows.jsonl"), 3)


PREFERENCES = {
    "texts": ({"prompt": "2 + 3?", "chosen": "5", "rejected": "6"}, ("2 + 3?", "5", "6")),
    "texts that begin alike": (
        {"chosen": "The sum is 5.", "rejected": "The sum is 6."}, ("The sum is", " 5.", " 6."),
    ),
    "one text begins the other": ({"chosen": "ab", "rejected": "abc"}, ("a", "b", "bc")),
    "messages": ({"prompt": [USER], "chosen": [RIGHT], "rejected": [WRONG]}, ((USER,), "It is 5.", "It is 6.")),
    "messages that begin alike": (
        {"chosen": [USER, RIGHT], "rejected": [USER, WRONG]}, ((USER,), "It is 5.", "It is 6."),
    ),
    "several turns": (
        {"chosen": [USER, WRONG, AGAIN, RIGHT], "rejected": [USER, WRONG, AGAIN, WRONG]},
        ((USER, WRONG, AGAIN), "It is 5.", "It is 6."),
    ),
    "the same reply twice": ({"chosen": [USER, RIGHT], "rejected": [USER, RIGHT]}, ((USER,), "It is 5.", "It is 5.")),
    "a prompt that the messages hold": (
        {"prompt": "What is 2 + 3?", "chosen": [USER, RIGHT], "rejected": [USER, WRONG]},
        ((USER,), "It is 5.", "It is 6."),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("row", "expected"), PREFERENCES.values(), ids=PREFERENCES)
def test_a_preference_is_read_whichever_way_it_is_said(row: dict[str, Any], expected: tuple[Any, ...]):
    assert read_preference(PreferenceRow.of(row, HERE)) == expected


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"chosen": "5"}, "rejected: no such column"),
        ({"prompt": "?", "chosen": "5", "rejected": 6}, "rejected: is 6; expected text or a list of"),
        ({"prompt": "?", "chosen": "5", "rejected": [WRONG]}, "rejected: .* expected text where `chosen` is text"),
        ({"prompt": [USER], "chosen": "5", "rejected": "6"}, "prompt: .* expected text, as `chosen` and"),
        ({"chosen": "five", "rejected": "six"}, "rejected: is 'six'; expected a text that begins as `chosen` does"),
        ({"chosen": [RIGHT], "rejected": [WRONG]}, "rejected: .* expected messages that begin as those of `chosen`"),
        (
            {"chosen": [USER, RIGHT, AGAIN, RIGHT], "rejected": [USER, WRONG]},
            "chosen: goes on with messages of assistant, user, assistant; expected text, or one message",
        ),
        ({"chosen": [USER, AGAIN], "rejected": [USER, USER]}, "chosen: goes on with messages of user"),
        ({"chosen": [USER, RIGHT], "rejected": [{"role": "user"}]}, "rejected: is .*; expected text or a list of"),
    ],
)  # fmt: skip
def test_what_is_no_preference_is_refused_with_its_field(row: dict[str, Any], message: str):
    with pytest.raises(RecordError, match=rf"^rows\.jsonl:3: {message}"):
        read_preference(PreferenceRow.of(row, HERE))


def test_a_reply_is_text_or_one_message_of_the_assistant():
    def reply(completion: Any) -> str:
        (rollout,) = trl_unpaired.PLUGIN().read({"prompt": "?", "completion": completion, "label": True}, HERE)
        return rollout.response

    assert reply("5") == "5"
    assert reply([RIGHT]) == "It is 5."
    for value in ([USER], [RIGHT, RIGHT], [], 5, None):
        with pytest.raises(RecordError, match="completion: "):
            reply(value)


def test_prompts_are_texts_or_messages_as_needed():
    assert as_messages("What is 2 + 3?") == [USER]
    assert as_messages((USER, RIGHT)) == [USER, RIGHT]
    assert as_text("?") == "?"
    assert as_text((USER,)) == "What is 2 + 3?"
    with pytest.raises(DataError, match="a prompt of several messages"):
        as_text((USER, RIGHT, AGAIN))
