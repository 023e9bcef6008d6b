"""How good a model is, in figures that say how they were made."""
