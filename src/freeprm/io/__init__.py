"""How records, settings and plug-ins rest on disk and come back."""
