"""All SQL of OMS, on SQLAlchemy Core: functions that take an open transaction.

What differs by database is in ``sqlite``; nothing else knows which one it is.
"""
