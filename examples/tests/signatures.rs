//! The recipes that verify webhooks, with the senders' own examples, and with what nobody has sent yet.

#[path = "signatures/github.rs"]
mod github;
#[path = "signatures/request.rs"]
mod request;
#[path = "signatures/standard_webhooks.rs"]
mod standard_webhooks;
#[path = "signatures/stripe.rs"]
mod stripe;
