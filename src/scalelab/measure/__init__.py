"""How figures are measured: statistics, communication, memory, environment."""
