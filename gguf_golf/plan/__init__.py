"""Bytes as a budget: candidates with exact bytes, the knapsack over them, and the recipe that it writes."""
