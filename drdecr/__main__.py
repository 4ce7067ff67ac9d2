"""Run the command line as `python -m drdecr`."""

from drdecr.cli import main

if __name__ == "__main__":
    main()
