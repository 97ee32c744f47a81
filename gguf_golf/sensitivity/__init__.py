"""What an error in one tensor, row, channel or single weight costs the model, measured."""
