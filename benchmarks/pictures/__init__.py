"""The README's two pictures, made anew: ``python -m benchmarks.pictures``."""
