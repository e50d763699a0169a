"""The whole pipeline as its users run it: real processes, real HTTP, real servers."""
