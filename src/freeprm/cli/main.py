"""The entry point: `freeprm COMMAND`; errors of ours are one message, without a traceback."""

import os
import sys
import warnings
from typing import Annotated

import typer

import freeprm
from freeprm.cli import listing, output
from freeprm.cli.builder import add
from freeprm.cli.experiments import DEMO, EXPERIMENTS
from freeprm.cli.planning import PLAN
from freeprm.cli.stages import STAGES
from freeprm.errors import FreePRMError, RecordError

INTERRUPTED = 130
"""Typer's exit code at Ctrl-C."""
_SPIN = "1000"  # turns of busy waiting before a thread sleeps: some 50 microseconds

app = typer.Typer(
    name="freeprm",
    help="Process rewards from right-or-wrong answers: sample, grade, train, score, select, evaluate.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
for command in (DEMO, *STAGES, PLAN, *EXPERIMENTS):
    add(app, command)
app.command("list")(listing.show)


def _version(value: bool) -> None:
    if value:
        print(freeprm.__version__)
        raise typer.Exit


@app.callback()
def _main(version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True)] = False) -> None:
    pass


def run() -> None:
    """Run the command line."""
    warnings.showwarning = output.show_warning
    if not sys.warnoptions:
        warnings.simplefilter("ignore", FutureWarning)  # what libraries tell each other
    if "OMP_WAIT_POLICY" not in os.environ:
        # Before torch is loaded. By default GNU's OpenMP busy-waits for milliseconds at each matrix product; if other
        # work has the cores, that keeps them from the very thread that is waited for.
        os.environ.setdefault("GOMP_SPINCOUNT", _SPIN)
    sys.path.append(os.getcwd())  # so that package.module:Name finds the user's own files, after all others
    code, message = _outcome()
    if message:  # printed here, after progress bars that the exception referred to have been closed
        print(message, file=sys.stderr)
    sys.exit(code)


def _outcome() -> tuple[int | str | None, str]:
    """Run a command; its exit code and a final message."""
    try:
        app()
    except FreePRMError as error:
        return 1, f"{type(error).__name__}: {error}{_advice(error)}"
    except SystemExit as exit_:
        interrupted = exit_.code == INTERRUPTED
        return exit_.code, "interrupted; the same command goes on from here" if interrupted else ""
    return 0, ""


def _advice(error: FreePRMError) -> str:
    """Advice on a row without our columns: `freeprm convert`, if it reads the row."""
    if not isinstance(error, RecordError) or error.row is None:
        return ""
    from freeprm.formats._reading import recognise
    from freeprm.io.rollouts import OURS

    try:
        found = [name for name in recognise(dict(error.row)) if name != OURS]
    except FreePRMError:  # of a plug-in, and unrelated
        return ""
    if not found:
        return ""
    return f" The row is {' or '.join(found)}: `freeprm convert INPUT --out rows.jsonl` makes it one of ours."
