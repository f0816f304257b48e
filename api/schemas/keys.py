"""Requests and answers about keys."""

from marshmallow import Schema, fields
from marshmallow.validate import Length, OneOf, Range, Regexp

from api.schemas.problem import IS_CONTENT_TYPE
from api.schemas.strict import QueryInteger
from bridge.admission.keys import SCOPES
from bridge.bounded_schema import BoundedList, ShortMoment, Strict, member, optional
from bridge.jobs.remote_sources import FETCHES
from bridge.names import TENANT_PATTERN
from bridge.outgoing.destination import LONGEST


class CreateKey(Strict):
    """A new key."""

    name = member(fields.String, "A human-readable name.", validate=Length(1, 100))
    scopes = BoundedList(fields.String(validate=OneOf(SCOPES)), most=len(SCOPES), required=True)
    tenant = optional(
        fields.String,
        "Defaults to your own; another one only for an admin of tenant `default`.",
        validate=Regexp(rf"^{TENANT_PATTERN}\Z", error="Must be 1 to 50 characters of a-z 0-9 . _ and -."),
    )
    content_types = optional(
        BoundedList,
        "The only content types its workers may claim; omit to allow all.",
        fields.String(validate=IS_CONTENT_TYPE),
        most=100,
    )
    expires_at = optional(ShortMoment, "A future moment, with an offset.", format="iso")
    callback_url = optional(
        fields.String,
        "An https address that receives the outcomes of those of its jobs that name none.",
        validate=Length(1, LONGEST),
    )
    source_fetch = optional(
        fields.String,
        "Who asks the server of `source_url` for those of its jobs that do not say.",
        validate=OneOf(FETCHES),
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
    made_by = member(
        fields.String, "The prefix of the key that created it, or `command`, `bootstrap`, `no-key`.", null=True
    )
    revoked_by = fields.String(required=True, allow_none=True)
    callback_url = fields.String(required=True, allow_none=True)
    source_fetch = fields.String(required=True, allow_none=True, validate=OneOf(FETCHES))


class CreatedKey(Key):
    """A new key with its secret, which is shown only once and not stored."""

    key = fields.String(required=True)
    webhook_secret = member(
        fields.String,
        "The secret that signs its webhooks (`whsec_…`), if it has a callback_url; shown once.",
        null=True,
    )


class WebhookSecret(Schema):
    """A key's new webhook secret, shown only once."""

    prefix = fields.String(required=True)
    webhook_secret = fields.String(required=True)


class KeysQuery(Strict):
    """Which keys, and which page of them."""

    made_by = optional(fields.String, "Only keys created by the key with this prefix.", validate=Length(1, 40))
    limit = QueryInteger(load_default=100, validate=Range(1, 500))
    cursor = fields.String(load_default=None, validate=Length(1, 200))


class KeyPage(Schema):
    """A page of the keys that the caller administers, revoked ones too, oldest first."""

    keys = fields.List(fields.Nested(Key()), required=True)
    next_cursor = fields.String(required=True, allow_none=True)


class RevokeQuery(Strict):
    """What else to revoke."""

    made = optional(
        fields.Boolean,
        "Also revoke every key that it created, directly or indirectly.",
        load_default=False,
        truthy={"true"},
        falsy={"false"},
    )


class RevokedKey(Schema):
    """The effect of revoking a key."""

    prefix = fields.String(required=True)
    revoked_at = fields.AwareDateTime(required=True)
    revoked_by = fields.String(required=True, allow_none=True)
    released = member(fields.Integer, "Jobs of its workers that were returned to the queue.")
    also_revoked = member(fields.Integer, "Keys that it created, revoked with it.")
