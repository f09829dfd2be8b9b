//! The query of a request.

use std::{collections::BTreeSet, str::FromStr};

use axum::extract::Query;

/// The limit of ids in a query.
const MAX_IDS: usize = 1_000;

pub(crate) type QueryPairs = Query<Vec<(String, String)>>;

/// The ids in a query `?id=…&id=…`, in upper or lower case. An empty set selects all elements.
pub(crate) fn parse_ids<T>(Query(query): &QueryPairs) -> Result<BTreeSet<T>, String>
where
    T: FromStr<Err: std::fmt::Display> + Ord,
{
    let ids = query.iter().filter(|(key, _)| key == "id");
    if ids.clone().count() > MAX_IDS {
        return Err(format!("at most {MAX_IDS} ids are allowed in one request"));
    }
    ids.map(|(_, id)| id.to_lowercase().parse().map_err(|error| format!("id {id:?}: {error}"))).collect()
}
