"""Decides when the next request may leave: the rate limiter and the search for the permitted rate. Pure."""
