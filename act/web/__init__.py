"""The auditor's pages: HTML from the server, and one small script that checks proofs in the reader's own browser."""
