"""GSM8K's format, by hand and on the real files."""

import json
from pathlib import Path

import pytest

from freeprm.datasets.gsm8k import GSM8K
from freeprm.errors import RecordError
from freeprm.io.files import write_table


def test_answers_come_from_the_last_marker_without_thousands_separators(tmp_path: Path):
    rows = [{"question": " How many? ", "answer": "First #### 3, then\n#### 1,200 "}]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (problem,) = GSM8K(path=tmp_path, instruction="").problems("train", limit=None, seed=0)
    assert (problem.problem_id, problem.prompt, problem.answer) == ("gsm8k-train-0", "How many?", "1200")


@pytest.mark.parametrize("answer", ["It is 18.", "It is 18.\n####", "####  "])
def test_an_answer_without_its_marker_is_refused(tmp_path: Path, answer: str):
    file = tmp_path / "test.jsonl"
    file.write_text(json.dumps({"question": "How many?", "answer": answer}) + "\n", encoding="utf-8")
    with pytest.raises(RecordError, match=r"test\.jsonl:1: answer: has no '#### n'"):
        list(GSM8K(path=file).problems("test", limit=None, seed=0))


def test_the_published_files_are_read_whole(real_data: Path):
    folder = real_data / "gsm8k"
    for split, count in (("train", 7473), ("test", 1319)):
        problems = list(GSM8K(path=folder).problems(split, limit=None, seed=0))
        lines = (folder / f"{split}.jsonl").read_text(encoding="utf-8").split("\n")[:-1]
        assert len(problems) == len(lines) == count
        derived = [str(json.loads(line)["final_answer"]).replace(",", "") for line in lines]
        assert [problem.answer for problem in problems] == derived


def test_a_copy_of_the_hubs_repository_is_read_like_the_published_file(real_data: Path, tmp_path: Path):
    rows = [json.loads(line) for line in (real_data / "gsm8k" / "test.jsonl").open(encoding="utf-8")][:50]
    for place in ("main", "socratic"):
        (tmp_path / place).mkdir()
        write_table(tmp_path / place / "test-00000-of-00001.parquet", rows)
    write_table(tmp_path / "test.csv", rows)
    from_parquet = list(GSM8K(path=tmp_path / "main").problems("test", limit=None, seed=0))
    from_csv = list(GSM8K(path=tmp_path / "test.csv").problems("test", limit=None, seed=0))
    published = list(GSM8K(path=real_data / "gsm8k").problems("test", limit=None, seed=0))[:50]
    assert from_parquet == from_csv == published


def test_a_prompt_asks_for_the_form_that_the_grader_reads_unless_told_otherwise(tmp_path: Path):
    file = tmp_path / "test.jsonl"
    file.write_text(json.dumps({"question": "How many?", "answer": "#### 3"}) + "\n", encoding="utf-8")
    prompts = [
        next(iter(dataset.problems("test", limit=None, seed=0))).prompt
        for dataset in (GSM8K(path=file), GSM8K(path=file, instruction="In French."), GSM8K(path=file, instruction=""))
    ]
    asked = r"Please reason step by step, and put your final answer within \boxed{}."
    assert prompts == [f"How many?\n{asked}", "How many?\nIn French.", "How many?"]
