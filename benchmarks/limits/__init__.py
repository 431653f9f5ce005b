"""The simulator that the pacing law was found with: gateways of every kind, and how well a pacer meets them."""
