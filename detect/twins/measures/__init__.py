"""What a suspect prefers of a pair, by what it lets one see: log-probabilities, one token at partings, free answers."""
