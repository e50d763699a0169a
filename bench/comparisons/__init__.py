"""What is compared: one file each."""
