"""The program that a rank runs: it turns a spec into a record and knows nothing of launchers."""
