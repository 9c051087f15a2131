"""How others do what we do, to measure against: written down plainly by us, or called from their package."""
