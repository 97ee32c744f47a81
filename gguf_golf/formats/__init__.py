"""What the bytes mean: block layouts, ids, names, exact bits per weight, and a readable decoder for our types."""
