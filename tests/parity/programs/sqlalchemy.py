# /// script
# dependencies = ["sqlalchemy[asyncio]==2.0.52", "psycopg2-binary==2.9.13", "aiosqlite"]
# [tool.parity]
# servers = ["postgres"]
# [[tool.parity.differences]]
# reason = "literals never leave the process"
# side = "ddtrace"
# pattern = "(%\\(owner_id__.\\)s), \\d"
# replacement = "\\1, ?"
# [[tool.parity.differences]]
# reason = "literals never leave the process"
# side = "ddtrace"
# pattern = "typname = 'hstore'"
# replacement = "typname = ?"
# ///
"""Core, ORM and asyncio of SQLAlchemy over PostgreSQL and SQLite, as its drivers' spans show it: ddtrace's default."""

from __future__ import annotations

import asyncio
import os

from sqlalchemy import ForeignKey, create_engine, exc, insert, select, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship


class Base(DeclarativeBase):
    pass


class User(Base):
    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column()
    items: Mapped[list[Item]] = relationship(back_populates="owner")


class Item(Base):
    __tablename__ = "items"
    id: Mapped[int] = mapped_column(primary_key=True)
    owner_id: Mapped[int] = mapped_column(ForeignKey("users.id"))
    owner: Mapped[User] = relationship(back_populates="items")


POSTGRES = f"postgresql+psycopg2://postgres@127.0.0.1:{os.environ['POSTGRES_PORT']}/postgres"
for url in (POSTGRES, "sqlite:///shop.db"):
    engine = create_engine(url)
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add(User(name="secret", items=[Item(), Item()]))
        session.commit()
        user = session.scalars(select(User).where(User.name == "secret")).one()
        print(len(user.items))
        user.name = "other"
        session.flush()
        session.rollback()
    with engine.begin() as connection:
        connection.execute(insert(User), [{"name": "a"}, {"name": "b"}])
        print(connection.execute(text("SELECT count(*) FROM users WHERE name <> :name"), {"name": "x"}).scalar())
        print(connection.exec_driver_sql("SELECT max(id) FROM users").scalar())
    try:
        with engine.connect() as connection:
            connection.execute(text("SELECT nothing FROM nowhere"))
    except exc.DBAPIError as error:
        print(type(error).__name__)
    engine.dispose()


async def work() -> None:
    engine = create_async_engine("sqlite+aiosqlite:///shop.db")
    async with engine.begin() as connection:
        print((await connection.execute(text("SELECT count(*) FROM users"))).scalar())
    await engine.dispose()


asyncio.run(work())
