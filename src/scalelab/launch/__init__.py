"""Launchers: (spec, placement) becomes processes. They know nothing of training and import no torch."""
