"""Webhooks: an ASGI application that makes events of authenticated requests. It needs no other package."""

from jetflow.webhooks.application import Webhooks
from jetflow.webhooks.authentication import Authentication, Basic, GitHub, HeaderKey, Hmac, Slack, Stripe
from jetflow.webhooks.webhook import Webhook

__all__ = ["Authentication", "Basic", "GitHub", "HeaderKey", "Hmac", "Slack", "Stripe", "Webhook", "Webhooks"]
