"""large-batch and convergence: what is learnt."""
