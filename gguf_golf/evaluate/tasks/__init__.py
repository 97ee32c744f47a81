"""Questions with known answers: reading them, asking a model, counting."""
