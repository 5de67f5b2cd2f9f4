"""Layers over ranks: how a model is cut into stages, what passes between them, and what strategies of stages share."""
