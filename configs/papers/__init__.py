"""One file a method: its recipes, and the experiment that shows what its paper claims.

Each file has `recipes()`, every training run by name, and `STUDY`, which trains, measures and says
whether the claim holds: `python scripts/reproduce.py NAME`.
"""
