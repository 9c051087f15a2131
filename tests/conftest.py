"""Shared fixtures: real data, real tokenizers, a real tiny Llama; absent data skips the test and says so."""

import gc
import os
from pathlib import Path

import pytest

REPO = Path(__file__).parents[1]

os.environ.setdefault("OMP_NUM_THREADS", "1")  # workers share the cores; set before anything loads torch
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"


@pytest.fixture(scope="module", autouse=True)
def _what_was_imported_is_no_garbage() -> None:
    """Every run of transformers' trainer collects garbage, for half a second where it looks at all that is imported."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real problems, rollouts, weights and tokenizers."""
    folder = Path(os.environ.get("FREEPRM_TEST_DATA", REPO.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set FREEPRM_TEST_DATA")
    return folder


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """The folder of SmolLM2-135M-Instruct, a real chat model."""
    folder = Path(os.environ.get("FREEPRM_TEST_MODELS", "")) / "smollm2-135m"
    if "FREEPRM_TEST_MODELS" not in os.environ or not folder.is_dir():
        pytest.skip("no smollm2-135m; set FREEPRM_TEST_MODELS to the folder that has it")
    return folder


@pytest.fixture(scope="session")
def stories(real_data: Path) -> Path:
    """A pretrained 260K-parameter Llama: no chat template, no pad token, context 512."""
    return real_data / "tiny_lm_stories260k" / "hf"


@pytest.fixture(scope="session")
def qwen_tokenizer(real_data: Path):  # type: ignore[no-untyped-def]  # transformers is imported only if used
    """A real chat tokenizer with merged `.\\n\\n` tokens."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(real_data / "tokenizer_qwen2_5")


@pytest.fixture(scope="session")
def template_prm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny log-ratio with Llama-3's template, whose context is 128 tokens."""
    from tiny import LLAMA3, save_pair

    folder = tmp_path_factory.mktemp("pair")
    save_pair(folder, template=LLAMA3)
    return folder / "prm"
