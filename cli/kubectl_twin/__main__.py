"""`python -m kubectl_twin`, for where the console script is not on PATH."""

from kubectl_twin.main import main

if __name__ == "__main__":
    main()
