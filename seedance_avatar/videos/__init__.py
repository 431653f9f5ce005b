"""Videos: what may be asked for, how it is submitted once, fetched and told of."""
