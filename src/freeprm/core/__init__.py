"""The arithmetic: pure functions of values, with no files, no models and no globals."""
