"""Reports on a journal, as text and as a page."""
