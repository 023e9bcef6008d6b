"""Recipes: one file a run, each with a function `recipe()` that returns a `Recipe`."""
