"""Measuring: models and data to measure with, clocks, peak memory, the speed of a bare matrix product."""
