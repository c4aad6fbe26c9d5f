//! What the benchmarks share; each of them uses its part.
#![allow(dead_code, unreachable_pub, unused_imports)]

mod args;
mod cases;
mod clients;
mod data;
mod glide;
pub mod ledger;
pub mod measure;
mod reach;
mod rows;
mod subjects;
pub mod worker;

pub use args::Args;
pub use cases::each_case;
pub use clients::{Client, Fred, INCR, Op, RedisRs, Rustis, Store, Task, WINDOW};
pub use data::Data;
pub use glide::Glide;
pub use reach::{GLIDE, each_reach_case, reach_contenders};
pub use rows::{Row, Rows};
pub use subjects::{Subjects, bare_client, bare_connection};
