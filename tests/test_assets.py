"""The solvers that come with the package."""

import pytest

from freeprm.assets import SOLVERS, solver_path
from freeprm.errors import ModelError, PluginError


@pytest.mark.parametrize("name", SOLVERS)
def test_a_shipped_solver_is_a_whole_model_folder_or_says_what_is_missing(name: str):
    try:
        folder = solver_path(name)
    except ModelError as error:
        pytest.skip(str(error))
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {file.name for file in folder.iterdir()}


def test_an_unknown_solver_is_refused_with_the_known_names():
    with pytest.raises(PluginError, match=r"solver:huge: .* solver:small, solver:base, solver:large"):
        solver_path("huge")
