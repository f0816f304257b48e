"""`python -m bridge` is `jobbridge`."""

from bridge.cli import main

if __name__ == "__main__":
    main()
