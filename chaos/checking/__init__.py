"""The promises as numbered invariants, and the checker that judges them from the evidence alone."""
