"""What the process ends with, beside 0 for done and 2 for a wrong command line."""

FAILED, PARTLY, INTERRUPTED = 1, 3, 130
READER_GONE = 141  # what a shell shows for a program that SIGPIPE ended
