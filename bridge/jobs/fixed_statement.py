"""A statement that is built once, as an expression, and run as text from then on."""

from typing import Any

from sqlalchemy import ColumnElement, Select, TextClause, bindparam, literal_column, text
from sqlalchemy.dialects.postgresql import psycopg2
from sqlalchemy.engine.interfaces import BindTyping


class _Untyped(psycopg2.dialect):
    """Renders no cast around a parameter: text() sees none in `:name::json`, and adds the casts itself."""

    bind_typing = BindTyping.NONE


def fixed(statement: Select[Any]) -> TextClause:
    """Render the statement as text, once: SQLAlchemy 2.1's cache loses parameters of an INSERT … SELECT in a CTE,
    and building the expression at each call costs more than PostgreSQL takes to run it."""
    compiled = statement.compile(dialect=_Untyped(paramstyle="named"))
    values = compiled.params
    return text(str(compiled)).bindparams(
        *(
            bindparam(name, type_=bind.type) if bind.required else bindparam(name, values[name], type_=bind.type)
            for name, bind in compiled.binds.items()
            if name in values
        )
    )


def word(constant: str) -> ColumnElement[Any]:
    """Return one of our own constants as an SQL literal."""
    return literal_column(f"'{constant}'")
