"""The service's contract as bytes: requests, responses, refusals. Pure."""
