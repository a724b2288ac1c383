"""3x3x3 convolutions in forms of their own for CPUs and NVIDIA GPUs, else XLA's own."""
