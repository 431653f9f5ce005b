"""How soon is it known that an asset is active, and for how many looks: ``python -m benchmarks.polling``."""
