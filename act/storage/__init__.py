"""All SQL of the ledger. What differs between databases is in the module of the database's name, and only there."""
