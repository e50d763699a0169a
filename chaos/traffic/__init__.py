"""The sender: a process of its own, which survives all that is done to the pipeline and writes down each try."""
