"""Assets: their requests and responses, and how one goes through an ingest."""
