"""The command line ``seedance-avatar``; it uses only the public face."""
