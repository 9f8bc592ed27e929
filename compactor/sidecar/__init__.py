"""A store beside its bucket, as in a Space: one process that keeps server, compactor and sync alive, and ends them."""
