//! Who sent a webhook: recipes that verify the signatures of three kinds of senders.
//!
//! | sender | headers | signed is | when it was signed | the event's id |
//! |---|---|---|---|---|
//! | [`StandardWebhooks`], also Svix | `webhook-id`, `webhook-timestamp`, `webhook-signature` | id, time and body | within the tolerance | the header `webhook-id` |
//! | [`Stripe`] | `Stripe-Signature` | time and body | within the tolerance | `id` in the body |
//! | [`GitHub`] | `X-Hub-Signature-256`, `X-GitHub-Delivery` | the body | not told | the header `X-GitHub-Delivery` |
//!
//! Each takes the bytes of the body as they came, for another spelling of the same JSON has another
//! signature, and returns the event's id, by which a delivery that comes again is known. Each takes
//! several secrets, so that a secret can be changed without a refused delivery: add the new one here,
//! change it at the sender, then remove the old one here. Signatures are compared in constant time. No
//! error and no `Debug` shows a secret or a signature.

mod github;
mod header;
mod hex;
mod refusal;
mod secrets;
mod standard_webhooks;
mod stripe;
mod tolerance;

pub use github::GitHub;
pub use refusal::Refusal;
pub use secrets::SecretError;
pub use standard_webhooks::StandardWebhooks;
pub use stripe::Stripe;
