"""Open the house: `python app.py VERB --help` runs any step without a browser."""

from studio.settings import prepare_environment

if __name__ == "__main__":
    prepare_environment()
    from studio.verbs import app  # after the environment is set

    app()
