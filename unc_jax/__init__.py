"""Monte Carlo dropout 3D U-Nets for liver and tumour CT, and how far to trust them.

The pipeline, one room per step: `data` (scans to one array), `segmentation` (network,
losses, training), `uncertainty` (the Monte Carlo call and its measures), `study`
(does uncertainty tell good from bad segmentations?).

Axes: volumes are (x, y, z) in RAS+ order; batches on the device (b, x, y, z, c);
Monte Carlo samples lead: (n, x, y, z). Units stand in names: spacing_mm, window_hu.
"""
