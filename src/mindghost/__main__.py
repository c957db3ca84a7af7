"""`python -m mindghost COMMAND`: the same as `mindghost COMMAND`."""

from .cli.main import main

if __name__ == "__main__":
    main()
