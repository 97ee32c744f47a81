"""A folder of files as a repository of the Hugging Face hub: model card, checksums, parts, results."""
