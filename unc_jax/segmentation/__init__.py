"""Segmentation models: network, losses, training, checkpoints."""
