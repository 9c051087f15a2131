"""File formats of other projects, one file a member."""
