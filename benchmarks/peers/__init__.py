"""The contenders of `benchmarks.run`: this package and PyTorch with MONAI."""
