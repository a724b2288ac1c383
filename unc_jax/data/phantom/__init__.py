"""A drawn abdomen: shapes in mm, a scanner that samples them, raters that annotate."""
