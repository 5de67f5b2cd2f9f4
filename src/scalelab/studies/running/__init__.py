"""From a plan to findings: what is the same in every study."""
