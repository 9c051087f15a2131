"""A reward model as a server: FastAPI on top of any scorer."""
