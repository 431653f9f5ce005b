"""Reading manifests: formats, rows, and a check of the whole."""
