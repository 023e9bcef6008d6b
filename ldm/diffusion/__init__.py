"""Diffusion as mathematics: processes, predictions, objectives, solvers, grids and guidance.

It imports torch and nothing else of this project. The page beside this file is the tour.
"""
