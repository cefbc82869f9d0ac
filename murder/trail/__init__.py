"""What can be asked about later: files of lines beside the log.

lines      how they are written, bounded, chained, and found again
figures    how often things happened, and how long they took
audit      who did what: acts that change what others have
"""
