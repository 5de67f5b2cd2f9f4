"""A question, the trainings that answer it, the analysis, the answer. One file each."""
