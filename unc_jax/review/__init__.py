"""Which cases need a human: quality, work list, pictures and the report."""
