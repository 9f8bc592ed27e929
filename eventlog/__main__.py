"""`python -m eventlog` is the `eventlog` command."""

from eventlog.cli import main

if __name__ == "__main__":
    main()
