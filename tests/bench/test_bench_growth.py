"""The benchmark of growth."""

from freeprm.bench import growth


def test_a_row_tells_what_was_varied(work, well_formed):
    row = well_formed(growth.measure("N", 3, work, rounds=1))
    assert (row.details["axis"], row.details["x"], row.details["meaning"]) == ("N", 3, "responses a prompt")
