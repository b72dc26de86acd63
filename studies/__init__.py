"""Studies: several experiments, each with several seeds, and which of their differences are significant (study.py)."""
