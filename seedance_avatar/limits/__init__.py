"""How fast: when may the next request leave. Pure."""
