//! What the user guide says beside its code, which runs as documentation tests: its pages are complete, its
//! links lead somewhere, its configurations can be read, its tables name every option, and a server agrees
//! with what it says of rights and memory.

#[path = "guide/configurations.rs"]
mod configurations;
#[path = "guide/links.rs"]
mod links;
#[path = "guide/markdown.rs"]
mod markdown;
#[path = "guide/options.rs"]
mod options;
#[path = "guide/pages.rs"]
mod pages;
#[path = "guide/server.rs"]
mod server;
