"""Data sets and preprocessing: the scans of a folder as one array per cohort."""
