"""Many sources in, one outcome for each out."""
