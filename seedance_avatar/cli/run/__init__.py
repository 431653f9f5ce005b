"""Running an ingest: progress, results, summary and signals."""
