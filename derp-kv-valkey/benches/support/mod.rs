//! What the benchmarks share; each of them uses its part.
#![allow(dead_code, unreachable_pub, unused_imports)]

mod args;
mod cases;
mod clients;
mod data;
pub mod measure;
mod rows;
mod subjects;

pub use args::Args;
pub use cases::each_case;
pub use clients::{Fred, Op, RedisRs, Rustis, Store, Task, WINDOW};
pub use data::Data;
pub use rows::{Row, Rows};
pub use subjects::{Subjects, bare_client, bare_connection};
