"""3x3x3 convolutions that are fast on a CPU; elsewhere XLA's or those of `gpu_conv`."""
