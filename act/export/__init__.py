"""The ledger as a file in a format that others read, written as a stream: no export is ever held in memory."""
