"""Data set and preprocessing: from Decathlon folders to one array per cohort."""
