"""What was seen: written while a scenario runs, and all that the checker decides from."""
