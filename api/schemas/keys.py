"""Requests and answers about keys."""

from marshmallow import Schema, fields, validate

from api.schemas.strict import QueryInteger
from bridge.admission.keys import SCOPES
from bridge.bounded_schema import BoundedList, ShortMoment, Strict
from bridge.jobs.remote_sources import FETCHES
from bridge.names import CONTENT_TYPE_PATTERN, TENANT_PATTERN
from bridge.outgoing.destination import LONGEST


class CreateKey(Strict):
    """A new key."""

    name = fields.String(
        required=True, validate=validate.Length(1, 100), metadata={"description": "A human-readable name."}
    )
    scopes = BoundedList(fields.String(validate=validate.OneOf(SCOPES)), most=len(SCOPES), required=True)
    tenant = fields.String(
        load_default=None,
        validate=validate.Regexp(rf"^{TENANT_PATTERN}\Z", error="Must be 1 to 50 characters of a-z 0-9 . _ and -."),
        metadata={"description": "Defaults to your own; another one only for an admin of tenant `default`."},
    )
    content_types = BoundedList(
        fields.String(
            validate=validate.Regexp(rf"^{CONTENT_TYPE_PATTERN}\Z", error="Not a content type: use a-z 0-9 . _ and -.")
        ),
        most=100,
        load_default=None,
        allow_none=True,
        metadata={"description": "The only content types its workers may claim; omit to allow all."},
    )
    expires_at = ShortMoment(
        format="iso", load_default=None, allow_none=True, metadata={"description": "A future moment, with an offset."}
    )
    callback_url = fields.String(
        load_default=None,
        allow_none=True,
        validate=validate.Length(1, LONGEST),
        metadata={"description": "An https address that receives the outcomes of those of its jobs that name none."},
    )
    source_fetch = fields.String(
        load_default=None,
        allow_none=True,
        validate=validate.OneOf(FETCHES),
        metadata={"description": "Who asks the server of `source_url` for those of its jobs that do not say."},
    )


class Key(Schema):
    """A key, without its secret."""

    prefix = fields.String(required=True)
    name = fields.String(required=True)
    tenant = fields.String(required=True)
    scopes = fields.List(fields.String(), required=True)
    content_types = fields.List(fields.String(), required=True, allow_none=True)
    created_at = fields.AwareDateTime(required=True)
    expires_at = fields.AwareDateTime(required=True, allow_none=True)
    revoked_at = fields.AwareDateTime(required=True, allow_none=True)
    last_used_at = fields.AwareDateTime(required=True, allow_none=True)
    made_by = fields.String(
        required=True,
        allow_none=True,
        metadata={"description": "The prefix of the key that created it, or `command`, `bootstrap`, `no-key`."},
    )
    revoked_by = fields.String(required=True, allow_none=True)
    callback_url = fields.String(required=True, allow_none=True)
    source_fetch = fields.String(required=True, allow_none=True, validate=validate.OneOf(FETCHES))


class CreatedKey(Key):
    """A new key with its secret, which is shown only once and not stored."""

    key = fields.String(required=True)
    webhook_secret = fields.String(
        required=True,
        allow_none=True,
        metadata={
            "description": "The secret that signs its webhooks (`whsec_…`), if it has a callback_url; shown once."
        },
    )


class WebhookSecret(Schema):
    """A key's new webhook secret, shown only once."""

    prefix = fields.String(required=True)
    webhook_secret = fields.String(required=True)


class KeysQuery(Strict):
    """Which keys, and which page of them."""

    made_by = fields.String(
        load_default=None,
        validate=validate.Length(1, 40),
        metadata={"description": "Only keys created by the key with this prefix."},
    )
    limit = QueryInteger(load_default=100, validate=validate.Range(1, 500))
    cursor = fields.String(load_default=None, validate=validate.Length(1, 200))


class KeyPage(Schema):
    """A page of the keys that the caller administers, revoked ones too, oldest first."""

    keys = fields.List(fields.Nested(Key()), required=True)
    next_cursor = fields.String(required=True, allow_none=True)


class RevokeQuery(Strict):
    """What else to revoke."""

    made = fields.Boolean(
        load_default=False,
        truthy={"true"},
        falsy={"false"},
        metadata={"description": "Also revoke every key that it created, directly or indirectly."},
    )


class RevokedKey(Schema):
    """The effect of revoking a key."""

    prefix = fields.String(required=True)
    revoked_at = fields.AwareDateTime(required=True)
    revoked_by = fields.String(required=True, allow_none=True)
    released = fields.Integer(
        required=True, metadata={"description": "Jobs of its workers that were returned to the queue."}
    )
    also_revoked = fields.Integer(required=True, metadata={"description": "Keys that it created, revoked with it."})
