//! The helpers as layers around any tower service over `http::Request`.
