"""The demo's shop: a catalogue in sqlite3, pages by Jinja2, the stock asked over HTTP. Knows nothing of tracing."""

import os
import signal
import sqlite3
import sys

import requests
from flask import Flask, Response, abort, jsonify, render_template_string

DATABASE = os.environ["SHOP_DATABASE"]
STOCK = os.environ["STOCK_URL"]
ITEMS = [(1, "teapot", 24.0), (2, "cup", 6.5), (3, "kettle", 39.0)]
PAGE = "<h1>Shop</h1>{% for item in items %}<p>{{ item.name }}: {{ stock[item.id | string] }} left</p>{% endfor %}"

app = Flask(__name__)


def connect() -> sqlite3.Connection:
    connection = sqlite3.connect(DATABASE)
    connection.row_factory = sqlite3.Row
    return connection


@app.get("/")
def catalogue() -> str:
    connection = connect()
    items = connection.execute("SELECT id, name FROM items ORDER BY name").fetchall()
    connection.close()
    stock = requests.get(f"{STOCK}/levels", timeout=5).json()
    return render_template_string(PAGE, items=items, stock=stock)


@app.get("/items/<int:item_id>")
def item(item_id: int) -> Response:
    connection = connect()
    row = connection.execute("SELECT name, price FROM items WHERE id = ?", (item_id,)).fetchone()
    connection.close()
    if row is None:
        abort(404)
    left = requests.get(f"{STOCK}/levels/{item_id}", timeout=5).json()["left"]
    return jsonify(name=row["name"], price=row["price"], left=left)


@app.post("/orders/<int:item_id>")
def order(item_id: int) -> Response:
    reply = requests.post(f"{STOCK}/levels/{item_id}/take", json={"count": 1000}, timeout=5)
    reply.raise_for_status()
    return jsonify(ordered=True)


def prepare() -> None:
    connection = sqlite3.connect(DATABASE)
    connection.execute("CREATE TABLE IF NOT EXISTS items (id INTEGER PRIMARY KEY, name TEXT, price REAL)")
    connection.executemany("INSERT OR IGNORE INTO items VALUES (?, ?, ?)", ITEMS)
    connection.commit()
    connection.close()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    prepare()
    app.run(port=int(os.environ["PORT"]), threaded=True)
