"""Uncertainty information: Monte Carlo sampling and the measures drawn from it."""
