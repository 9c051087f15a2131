"""Files that come with the package: the embedded solvers, presets."""

from pathlib import Path

from freeprm.errors import ModelError, PluginError

SOLVERS = ("small", "base", "large")


def solver_path(name: str = "base") -> Path:
    """The folder of a shipped solver, as transformers loads it.

    Raises:
        PluginError: no solver of that name.
        ModelError: this installation lacks the solver's weights.
    """
    if name not in SOLVERS:
        raise PluginError(
            f"solver:{name}: no such solver; expected one of {', '.join(f'solver:{known}' for known in SOLVERS)}"
        )
    folder = Path(__file__).parent / "solver" / name
    if not (folder / "model.safetensors").exists():
        raise ModelError(
            f"solver:{name}: no weights in {folder}; this installation is incomplete. Install the released package, or "
            "train the solvers with scripts/pretrain_solver.py"
        )
    return folder
