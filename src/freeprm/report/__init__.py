"""The report of a run: one self-contained page, and tables for the terminal."""
