"""`save_pretrained` and `push_to_hub`: what comes back is the same reward model, with a reference that is found."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import CommitOperationAdd
from huggingface_hub.errors import LocalTokenNotFoundError

import tiny
from freeprm.errors import ConfigError, ModelError
from freeprm.models.reward_config import load_reward_config
from freeprm.scorers.implicit import ImplicitPRM

GIVEN = ("the sum of 3 and 4?", ["it is 7", "no"])


class Hub:
    """Takes what is pushed, and gives it to whoever asks for it by name."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.made: list[tuple[str, bool | None, str | None]] = []
        self.messages: list[str] = []

    def api(self, *, token: str | None) -> SimpleNamespace:
        def create_repo(repo_id: str, *, private: bool | None, exist_ok: bool) -> SimpleNamespace:
            assert exist_ok
            self.made.append((repo_id, private, token))
            return SimpleNamespace(repo_id=repo_id)

        def create_commit(
            repo_id: str, operations: Sequence[CommitOperationAdd], *, commit_message: str, revision: str | None
        ) -> SimpleNamespace:
            out = self.folder / repo_id
            out.mkdir(parents=True)
            for one in operations:
                with one.as_file() as file:
                    (out / one.path_in_repo).write_bytes(file.read())
            self.messages.append(commit_message)
            return SimpleNamespace(commit_url=f"https://hub/{repo_id}/commit/1")

        return SimpleNamespace(create_repo=create_repo, create_commit=create_commit)

    def download(self, source: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        return str(self.folder / source)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    made = Hub(tmp_path / "hub")
    monkeypatch.setattr("freeprm.models.publishing.HfApi", made.api)
    monkeypatch.setattr("freeprm.models.loading.snapshot_download", made.download)
    return made


@pytest.fixture
def pair(tmp_path: Path) -> Path:
    """A folder with `prm`, as training leaves it, and `ref`."""
    tiny.save_pair(tmp_path, template=tiny.LLAMA3)
    (tmp_path / "prm" / "README.md").write_text(f"pi_ref = {tmp_path / 'ref'}")
    (tmp_path / "prm" / "checkpoint-1").mkdir()
    (tmp_path / "prm" / "checkpoint-1" / "optimizer.pt").write_text("large")
    (tmp_path / "prm" / "_lock").write_text("")
    return tmp_path


def test_what_was_saved_is_the_same_reward_model(pair: Path, tmp_path: Path):
    before = ImplicitPRM.from_pretrained(pair / "prm")
    before.save_pretrained(tmp_path / "a" / "copy")
    after = ImplicitPRM.from_pretrained(tmp_path / "a" / "copy")
    assert after.score(*GIVEN) == before.score(*GIVEN)
    assert after.config == before.config
    names = {path.name for path in (tmp_path / "a" / "copy").iterdir()}
    assert {"model.safetensors", "tokenizer.json", "reward.json", "README.md"} <= names
    assert not {"checkpoint-1", "_lock"} & names


def test_another_beta_is_saved_where_it_was_asked_for(pair: Path, tmp_path: Path):
    ImplicitPRM.from_pretrained(pair / "prm", beta=2.0, override=["beta"]).save_pretrained(tmp_path / "copy")
    assert load_reward_config(tmp_path / "copy").beta == 2.0


def test_what_was_pushed_is_the_same_reward_model_by_its_hub_id(pair: Path, hub: Hub):
    shutil.copytree(pair / "ref", hub.folder / "me" / "ref")
    before = ImplicitPRM.from_pretrained(pair / "prm")
    expected = before.score(*GIVEN)
    url = before.push_to_hub("me/prm", reference="me/ref", private=True, token="t", commit_message="first")
    assert (url, hub.made, hub.messages) == ("https://hub/me/prm/commit/1", [("me/prm", True, "t")], ["first"])
    shutil.rmtree(pair / "prm")
    shutil.rmtree(pair / "ref")
    after = ImplicitPRM.from_pretrained("me/prm")
    assert after.score(*GIVEN) == expected
    assert after.config.reference is not None
    assert (after.config.reference.source, after.config.base) == ("me/ref", "me/ref")
    assert (hub.folder / "me" / "prm" / "README.md").read_text() == "pi_ref = me/ref"


def test_a_reference_that_only_this_machine_has_is_not_pushed(pair: Path, hub: Hub):
    prm = ImplicitPRM.from_pretrained(pair / "prm")
    with pytest.raises(
        ConfigError, match=r"reward.json names .*ref, which only this machine has.*reference='OWNER/NAME'"
    ):
        prm.push_to_hub("me/prm")
    assert hub.made == []


def test_an_adapter_s_base_goes_with_the_reference(pair: Path, tmp_path: Path, hub: Hub):
    prm = ImplicitPRM.from_pretrained(pair / "prm")
    adapter = {"base_model_name_or_path": str(pair / "ref"), "revision": None, "r": 8}
    (pair / "prm" / "adapter_config.json").write_text(json.dumps(adapter))
    prm.push_to_hub("me/prm", reference="me/ref")
    stored = json.loads((hub.folder / "me" / "prm" / "adapter_config.json").read_text())
    assert stored == {**adapter, "base_model_name_or_path": "me/ref"}
    (pair / "other").mkdir()
    (pair / "prm" / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(pair / "other")}))
    with pytest.raises(ConfigError, match=r"adapter_config.json names .*other"):
        prm.push_to_hub("me/prm", reference="me/ref")


def test_a_refusal_of_the_hub_is_told(pair: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*given: object, **named: object) -> None:
        raise LocalTokenNotFoundError("no token")

    api = SimpleNamespace(create_repo=refuse)
    monkeypatch.setattr("freeprm.models.publishing.HfApi", lambda *, token: api)
    with pytest.raises(ModelError, match=r"me/prm: not put on the hub .*no token.*hf auth login"):
        ImplicitPRM.from_pretrained(pair / "prm").push_to_hub("me/prm", reference="me/ref")


def test_a_model_is_not_saved_over_itself(pair: Path):
    before = (pair / "prm" / "reward.json").read_bytes()
    with pytest.raises(ConfigError, match="is where the model is; give another folder"):
        ImplicitPRM.from_pretrained(pair / "prm").save_pretrained(pair / "ref" / ".." / "prm")
    assert (pair / "prm" / "reward.json").read_bytes() == before
