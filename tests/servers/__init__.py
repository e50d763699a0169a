"""Private servers that the tests start and end."""
