"""What comes out: tables and a plot."""
