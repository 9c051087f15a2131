"""What to add to an error: the command that reads such data."""

from freeprm.errors import FreePRMError, RecordError


def advice(error: FreePRMError) -> str:
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
