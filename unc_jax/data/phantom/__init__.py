"""Synthetic cohort of abdominal CT: drawn patients, a scanner, raters that annotate."""
