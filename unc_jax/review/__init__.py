"""Review of segmentations: predicted quality, rule of the flags, pictures, report."""
