"""Pure rules of the ledger: no clock, no database, no HTTP."""
