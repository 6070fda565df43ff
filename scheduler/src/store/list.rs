//! Pages of tasks in the order of their deadlines, in words that both databases understand.

use super::row::COLUMNS;
use super::{Cursor, Filter};
use sqlx::{Database, Encode, QueryBuilder, Type};
use uuid::Uuid;
use wheel::SHARDS;

/// The query for a page.
///
/// Without a call, group or tenant to go by, and for tasks that have not ended, each shard has its
/// tasks in order: the page is merged from the first of each.
pub(super) fn select<DB>(filter: &Filter) -> QueryBuilder<DB>
where
    DB: Database,
    for<'q> i64: Encode<'q, DB> + Type<DB>,
    for<'q> String: Encode<'q, DB> + Type<DB>,
    for<'q> Uuid: Encode<'q, DB> + Type<DB>,
{
    let mut query = QueryBuilder::new("");
    let tenant = filter.tenant.as_deref().is_some_and(|tenant| !tenant.is_empty());
    let ended = filter.states.iter().any(|state| state.has_ended());
    if ended || tenant || !filter.call_id.is_empty() || !filter.group.is_empty() {
        page(&mut query, filter, None);
        return query;
    }
    query.push("SELECT * FROM (");
    for shard in 0..SHARDS {
        query.push(if shard > 0 { " UNION ALL SELECT * FROM (" } else { "SELECT * FROM (" });
        page(&mut query, filter, Some(shard));
        query.push(format!(") AS of_{shard}"));
    }
    query.push(") AS merged ORDER BY fires_at_unix_ms, task_id LIMIT ");
    query.push_bind(i64::from(filter.limit));
    query
}

fn page<DB>(query: &mut QueryBuilder<DB>, filter: &Filter, shard: Option<u8>)
where
    DB: Database,
    for<'q> i64: Encode<'q, DB> + Type<DB>,
    for<'q> String: Encode<'q, DB> + Type<DB>,
    for<'q> Uuid: Encode<'q, DB> + Type<DB>,
{
    query.push("SELECT ").push(COLUMNS).push(" FROM tasks WHERE state IN (");
    let mut states = query.separated(", ");
    for state in &filter.states {
        states.push((*state as i64).to_string());
    }
    query.push(")");
    if !filter.states.iter().any(|state| state.has_ended()) {
        query.push(" AND ended_unix_ms = 0"); // In the words of the indexes.
    }
    if let Some(shard) = shard {
        query.push(format!(" AND shard = {shard}"));
    }
    if !filter.call_id.is_empty() {
        query.push(" AND call_id <> '' AND call_id = ").push_bind(filter.call_id.clone());
    }
    if !filter.group.is_empty() {
        query.push(" AND group_name <> '' AND group_name = ").push_bind(filter.group.clone());
    }
    match &filter.tenant {
        None => {}
        Some(tenant) if tenant.is_empty() => drop(query.push(" AND tenant = ''")),
        Some(tenant) => {
            query.push(" AND tenant <> '' AND tenant = ").push_bind(tenant.clone());
        }
    }
    if let Some(from) = filter.fires_from_unix_ms {
        query.push(" AND fires_at_unix_ms >= ").push_bind(from);
    }
    if let Some(before) = filter.fires_before_unix_ms {
        query.push(" AND fires_at_unix_ms < ").push_bind(before);
    }
    if let Some(Cursor { fires_at_unix_ms, id }) = filter.after {
        query.push(" AND (fires_at_unix_ms, task_id) > (").push_bind(fires_at_unix_ms);
        query.push(", ").push_bind(Uuid::from_u128(id.0)).push(")");
    }
    query.push(" ORDER BY fires_at_unix_ms, task_id LIMIT ").push_bind(i64::from(filter.limit));
}
