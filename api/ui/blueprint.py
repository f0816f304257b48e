"""What the dashboard's routes are added to."""

from flask import Blueprint

from api.ui.render import protected

ui = Blueprint("ui", __name__, url_prefix="/ui")
ui.after_request(protected)
