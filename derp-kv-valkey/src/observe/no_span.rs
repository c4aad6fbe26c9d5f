//! What stands in the place of the spans without the feature `tracing`: nothing.

use derp_kv_core::{ErrorKind, Result};

use crate::address::Address;
use crate::config::ValkeyConfig;
use crate::node::connection::Connection;
use crate::protocol::Args;
use crate::protocol::reply::{ErrorReply, Reply};
use crate::protocol::request::Request;

#[derive(Debug)]
pub(crate) struct Server;

impl Server {
    pub(crate) fn of(_: &ValkeyConfig) -> Self {
        Self
    }
}

pub(crate) struct CommandSpan;

impl CommandSpan {
    pub(crate) fn of(_: &Server, _: &Request<'_>, _: Option<&Connection>) -> Self {
        Self
    }

    pub(crate) fn of_command(_: &Server, _: Args<'_>) -> Self {
        Self
    }

    pub(crate) fn of_pipeline(_: &Server, _: &'static str, _: usize) -> Self {
        Self
    }

    pub(crate) fn reached(&self, _: &Connection) {}

    pub(crate) fn again(&self, _: &Connection, _: Option<&ErrorReply>) {}

    pub(crate) fn refused(&self, _: &ErrorReply) {}

    pub(crate) fn failed(&self, _: ErrorKind) {}

    pub(crate) fn ended<T>(&self, _: &Result<T>) {}

    pub(crate) fn ended_pipeline(&self, _: &Connection, _: &[Reply], _: &Address) {}
}
