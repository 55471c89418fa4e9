"""The state of running environments as plain data, and back into environments made anew."""
