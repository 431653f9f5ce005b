"""When to look again at what is pending. Pure."""
