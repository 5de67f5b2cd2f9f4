"""What each strategy holds and sends, as formulas: what `scalelab explain` shows.."""
