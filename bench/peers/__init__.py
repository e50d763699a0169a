"""Programs of other makers' parts that do the same work as ours."""
