"""Let `python -m compactor` be the `compactor` command."""

from compactor.cli import main

if __name__ == "__main__":
    main()
