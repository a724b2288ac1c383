"""Results: quality against uncertainty, case by case."""
