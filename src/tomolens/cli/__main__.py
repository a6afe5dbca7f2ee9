"""``python -m tomolens.cli``, where the command itself is not on the path."""

from tomolens.cli.main import app

if __name__ == "__main__":
    app(prog_name="tomolens")
