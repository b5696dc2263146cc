"""What formats are made of: hash functions, generators, shapes that several formats share."""
