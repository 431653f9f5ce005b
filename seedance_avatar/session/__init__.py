"""The session: what a user holds."""
