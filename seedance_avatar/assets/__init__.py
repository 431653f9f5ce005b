"""Assets: their requests and responses, local files, and the adapter for an ingest."""
