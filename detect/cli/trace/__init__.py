"""`dyetrace trace`: weights, api and plan."""
