"""Alembic's folder: env.py runs the files of versions/, each of which brings the schema from one version to the next."""
