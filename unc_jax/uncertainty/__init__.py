"""Uncertainty of a segmentation: samples of a network, and measures of their spread."""
