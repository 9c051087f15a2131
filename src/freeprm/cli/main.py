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
from freeprm.cli.stages import STAGES
from freeprm.errors import FreePRMError, RecordError

INTERRUPTED = 130
"""What typer exits with at Ctrl-C."""
_SPIN = "1000"  # turns that a thread waits for another awake, before it sleeps: some 50 microseconds

app = typer.Typer(
    name="freeprm",
    help="Process rewards from right-or-wrong answers: sample, grade, train, score, select, evaluate.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
for command in (DEMO, *STAGES, *EXPERIMENTS):
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
    if "OMP_WAIT_POLICY" not in os.environ:
        # Before torch is loaded. By default GNU's OpenMP waits for milliseconds, at each product of matrices; where
        # other work has the cores, that keeps them from the very thread that is waited for.
        os.environ.setdefault("GOMP_SPINCOUNT", _SPIN)
    sys.path.append(os.getcwd())  # so that package.module:Name finds the user's own files, after all others
    code, message = _outcome()
    if message:  # printed here, where what the exception held on to has been closed: its bars have had their last say
        print(message, file=sys.stderr)
    sys.exit(code)


def _outcome() -> tuple[int | str | None, str]:
    """Run a command; its exit code, and what is left to say."""
    try:
        app()
    except FreePRMError as error:
        return 1, f"{type(error).__name__}: {error}{_advice(error)}"
    except SystemExit as exit_:
        interrupted = exit_.code == INTERRUPTED
        return exit_.code, "interrupted; the same command goes on from here" if interrupted else ""
    return 0, ""


def _advice(error: FreePRMError) -> str:
    """What to add to the error of a row that lacks our columns: that convert reads it, if it does."""
    if not isinstance(error, RecordError) or error.row is None:
        return ""
    from freeprm.formats._reading import recognise
    from freeprm.io.rollouts import OURS

    try:
        found = [name for name in recognise(dict(error.row)) if name != OURS]
    except FreePRMError:  # of a plug-in: not what went wrong here
        return ""
    if not found:
        return ""
    return f" The row is {' or '.join(found)}: `freeprm convert INPUT --out rows.jsonl` makes it one of ours."
