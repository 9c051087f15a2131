"""Our reading of TRL's rows against TRL's own functions, and our rows in TRL's own trainers.

TRL 1.16 has no trainer for stepwise supervision any more; what it took is checked as columns.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import tiny
from freeprm.formats._preferences import PreferenceRow, read_preference
from freeprm.formats.trl_preference import TRLPreference
from freeprm.formats.trl_stepwise import TRLStepwise
from freeprm.formats.trl_unpaired import TRLUnpaired
from freeprm.io.conversations import as_reply
from freeprm.io.rows import Source
from freeprm.types import Group

pytest.importorskip("trl", minversion="1.16", reason="compares with TRL's own code: pip install 'freeprm[test]'")

from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer
from trl.data_utils import is_conversational, maybe_extract_prompt

from datasets import Dataset

USER = {"role": "user", "content": "What is 2 + 3?"}
RIGHT, WRONG = ({"role": "assistant", "content": text} for text in ("It is 5.", "It is 6."))
AGAIN = {"role": "user", "content": "Sure?"}


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "2 + 3?", "chosen": "5", "rejected": "6"},
        {"chosen": "The sum is 5.", "rejected": "The sum is 6."},
        {"chosen": "The sum is five.", "rejected": "The sum is four."},
        {"chosen": "ab", "rejected": "abc"},
        {"prompt": [USER], "chosen": [RIGHT], "rejected": [WRONG]},
        {"chosen": [USER, RIGHT], "rejected": [USER, WRONG]},
        {"chosen": [USER, WRONG, AGAIN, RIGHT], "rejected": [USER, WRONG, AGAIN, WRONG]},
        {"chosen": [USER, RIGHT], "rejected": [USER, RIGHT]},
        {"prompt": "What is 2 + 3?", "chosen": [USER, RIGHT], "rejected": [USER, WRONG]},
    ],
)
def test_a_preference_is_split_as_trl_splits_it(row: dict[str, Any]):
    theirs = maybe_extract_prompt(row)
    prompt, chosen, rejected = read_preference(PreferenceRow.of(row, Source(Path("rows.jsonl"), 1)))
    if is_conversational(theirs):
        assert theirs["prompt"] == list(prompt)
        assert (theirs["chosen"], theirs["rejected"]) == (as_reply(chosen), as_reply(rejected))
    else:
        assert (theirs["prompt"], theirs["chosen"], theirs["rejected"]) == (prompt, chosen, rejected)


@pytest.mark.parametrize("conversational", [False, True])
def test_trl_takes_our_rows_for_what_they_are(conversational: bool, graded: list[Group]):
    pair = TRLPreference(conversational=conversational).write(graded).rows[0]
    reply = TRLUnpaired(conversational=conversational).write(graded).rows[0]
    assert is_conversational(pair) is is_conversational(reply) is conversational
    assert maybe_extract_prompt(pair) == pair


def test_steps_are_a_table_of_texts_and_labels(graded: list[Group]):
    features = Dataset.from_list(TRLStepwise().write(graded).rows).features
    assert {name: feature.dtype for name, feature in features.items() if name == "prompt"} == {"prompt": "string"}
    assert (features["completions"].feature.dtype, features["labels"].feature.dtype) == ("string", "bool")


def shortened(graded: list[Group]) -> list[Group]:
    """Two problems whose texts the tiny model's context holds, with a right and a wrong response each."""
    groups = []
    for index, group in enumerate(graded[:2]):
        prompt = f"the sum of {index} and 4?"
        kept = [
            replace(rollout, prompt=prompt, response=f"Step 1: {label}.\nthe answer is {index}", correct=label == "yes")
            for rollout, label in zip(group.rollouts, ("yes", "no"), strict=False)
        ]
        groups.append(replace(group, prompt=prompt, rollouts=tuple(kept)))
    return groups


def settings(folder: Path) -> dict[str, Any]:
    return {
        "output_dir": str(folder), "max_steps": 1, "per_device_train_batch_size": 4, "report_to": "none",
        "use_cpu": True, "bf16": False, "max_length": tiny.CONTEXT, "logging_steps": 1, "save_strategy": "no",
    }  # fmt: skip


@pytest.mark.parametrize("conversational", [False, True])
def test_dpo_trains_on_our_pairs(conversational: bool, graded: list[Group], tmp_path: Path):
    rows = TRLPreference(conversational=conversational).write(shortened(graded)).rows
    tokenizer = tiny.tokenizer(template=tiny.LLAMA3, pad="<s>")
    trainer = DPOTrainer(
        model=tiny.language_model(), ref_model=tiny.language_model(), args=DPOConfig(**settings(tmp_path)),
        train_dataset=Dataset.from_list(rows), processing_class=tokenizer,
    )  # fmt: skip
    seen = [tokenizer.decode(example["chosen_ids"], skip_special_tokens=True) for example in trainer.train_dataset]
    assert [text.strip() for text in seen] == [group.rollouts[0].response for group in shortened(graded)]
    assert trainer.train().training_loss > 0


@pytest.mark.parametrize("conversational", [False, True])
def test_kto_trains_on_our_replies(conversational: bool, graded: list[Group], tmp_path: Path):
    rows = TRLUnpaired(conversational=conversational).write(shortened(graded)).rows
    tokenizer = tiny.tokenizer(template=tiny.LLAMA3, pad="<s>")
    trainer = KTOTrainer(
        model=tiny.language_model(), ref_model=tiny.language_model(), args=KTOConfig(**settings(tmp_path)),
        train_dataset=Dataset.from_list(rows), processing_class=tokenizer,
    )  # fmt: skip
    ours = {(rollout.response, rollout.correct) for group in shortened(graded) for rollout in group.rollouts}
    theirs = [
        (tokenizer.decode(example["completion_ids"], skip_special_tokens=True).strip(), example["label"])
        for example in trainer.train_dataset
    ]
    assert set(theirs) == ours
    assert trainer.train().training_loss > 0
