"""Tables that others have printed, recomputed."""
