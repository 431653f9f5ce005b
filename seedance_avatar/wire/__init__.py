"""HTTP requests and responses as values, without I/O: JSON, headers, errors, and which URLs are public."""
