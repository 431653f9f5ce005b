"""Several accounts as one."""
