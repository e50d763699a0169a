"""Fetches the files of recordings, proves them whole, and places them where they are to be kept."""
