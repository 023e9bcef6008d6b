"""Reproductions: what a paper claims, what was measured here, and whether the direction holds."""
