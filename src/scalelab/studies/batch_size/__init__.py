"""batch-size."""
