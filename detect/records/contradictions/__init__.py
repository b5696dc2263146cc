"""What the types of records allow and no run writes: a function for each kind of record, which reading calls."""
