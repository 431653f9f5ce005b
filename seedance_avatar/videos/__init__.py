"""Video generations: requests and their rules, submission exactly once, downloads, and webhooks."""
