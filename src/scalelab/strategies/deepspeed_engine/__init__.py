"""The engine DeepSpeed: its ZeRO stages and its pipeline, on ranks that scalelab started and in the process group that scalelab made."""
