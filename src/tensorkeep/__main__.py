"""`python -m tensorkeep`."""

from tensorkeep.cli import main

if __name__ == "__main__":
    main()
