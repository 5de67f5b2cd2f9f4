"""One host against several: what a second computer brings."""
