"""weak-scaling and strong-scaling."""
