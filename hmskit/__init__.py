"""What both services need to be good HTTP services, and neither's rules (docs/adr/0001)."""
