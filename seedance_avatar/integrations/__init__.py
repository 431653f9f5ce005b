"""Optional extras, one file each, imported only when asked for."""
