//! Addresses of streams as clients write them, and the queries behind them: the same rules for every protocol.

pub(crate) mod query;
pub(crate) mod stream_url;
