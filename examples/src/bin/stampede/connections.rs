//! The connections of the database, of all processes together: it is they that a herd waits for.

pub(crate) const CONNECTIONS: u32 = 20;
