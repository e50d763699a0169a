"""One run of one contender: started alone, measured, checked."""
