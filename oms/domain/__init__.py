"""Pure rules: no clock, no database, no HTTP, no files."""
