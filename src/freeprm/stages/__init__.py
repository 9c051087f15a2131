"""The stages: each reads records and writes a run folder; none imports another."""
