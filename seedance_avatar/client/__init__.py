"""HTTP calls under the limits of one account: queueing, sending, retrying, and polling."""
