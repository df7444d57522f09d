"""A subnet as a person looks at it: its miners, what they announce, and the metagraph as a file."""
