"""A real local ToAPIs on a loopback port, for a first run, for tests and for benchmarks."""
