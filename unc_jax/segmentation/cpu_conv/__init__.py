"""3x3x3 convolutions that are fast on a CPU; other platforms use XLA's own."""
