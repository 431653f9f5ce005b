"""What the tests stand on: rude servers, fault proxies, clocks and ledgers. One module each."""
