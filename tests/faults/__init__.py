"""What is done to the services on bad days, and what must come of it."""
