"""One call: wait for a turn, send, read, repeat; and the poller of everything pending."""
