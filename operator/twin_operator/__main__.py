"""`python -m twin_operator`."""

from twin_operator.main import main

if __name__ == "__main__":
    main()
