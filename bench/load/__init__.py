"""What is sent, and how; and what is looked at from outside."""
