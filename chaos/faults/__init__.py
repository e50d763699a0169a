"""Faults of networks, disks, clocks and clients, each usable by itself."""
