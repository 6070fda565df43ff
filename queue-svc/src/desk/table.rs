//! The table of queues, which people also change by hand: read often, and whenever a name is new.

use super::Work;
use super::request::{Change, Failure};
use super::step::Step;
use crate::metrics;
use crate::store::StoreError;
use queue::{QueueId, Refusal, Settings, UnixMs, Wanted};
use std::time::Instant;
use tracing::warn;

impl Work {
    /// Reads the table if this queue is in none of the rows read so far; once for all requests that
    /// have come meanwhile.
    pub(super) async fn know(&mut self, wanted: &Wanted) {
        if !self.table_is_fresh && !self.queues.knows(wanted) {
            self.table_is_fresh = true;
            self.read_table_if_possible().await;
        }
    }

    pub(super) async fn read_table_if_possible(&mut self) {
        if let Err(e) = self.read_table().await {
            warn!("failed to read mohqueues; going on with what was there: {e}");
        }
    }

    /// A row that cannot be used is logged once; a queue that had a good row before keeps that.
    pub(super) async fn read_table(&mut self) -> Result<(), StoreError> {
        self.table_at = Instant::now();
        let rows = self.store.load_queues().await?;
        self.bad_rows.retain(|id, _| rows.contains_key(&QueueId(*id)));
        let mut table = std::collections::BTreeMap::new();
        for (id, row) in rows {
            match Settings::read(row) {
                Ok(settings) => {
                    self.bad_rows.remove(&id.0);
                    table.insert(id, settings);
                }
                Err(e) => {
                    let why = e.to_string();
                    if self.bad_rows.get(&id.0) != Some(&why) {
                        warn!(id = id.0, "failed to use a row of mohqueues: {why}");
                        self.bad_rows.insert(id.0, why);
                    }
                    if let Ok(before) = self.queues.queue_by_id(id) {
                        table.insert(id, before.clone());
                    }
                }
            }
        }
        self.queues.handle_table(boot::unix_ms(), table);
        self.finish(Step::default());
        Ok(())
    }

    /// The queue as it was or is now. The row is on disk.
    pub(super) async fn change(&mut self, change: Change) -> Result<(QueueId, Settings), Failure> {
        self.read_table().await.map_err(|e| Failure::Store(e.to_string()))?;
        let (id, settings, changed) = match change {
            Change::Create(settings) => {
                self.queues.check_free(None, &settings)?;
                match self.store.insert_queue(self.lease.fence, settings.row()).await {
                    Ok(id) => (id, settings, Ok(())),
                    Err(e) => (QueueId(0), settings, Err(e)),
                }
            }
            Change::Update(id, settings) => {
                let id = match id {
                    Some(id) => self.queues.queue_by_id(id).map(|_| id)?,
                    None => self.queues.queue(settings.name())?.0,
                };
                self.queues.check_free(Some(id), &settings)?;
                let changed = self.store.update_queue(self.lease.fence, id, settings.row()).await;
                (id, settings, changed)
            }
            Change::Delete(name) => {
                let id = self.queues.check_empty(&name)?;
                let settings = self.queues.queue(&name)?.1.clone();
                let changed = self.store.delete_queue(self.lease.fence, id).await;
                (id, settings, changed)
            }
        };
        changed.map_err(|e| failure(e, id, &settings))?;
        self.read_table_if_possible().await;
        Ok((id, settings))
    }
}

impl Work {
    /// Gauges of the queues and agents.
    pub(super) fn report(&mut self, now: UnixMs) {
        metrics::set_queues(&self.queues, now, &mut self.counted);
        metrics::set_agents(&self.queues);
    }
}

fn failure(e: StoreError, id: QueueId, settings: &Settings) -> Failure {
    match e {
        StoreError::Taken => {
            let (value, holder) = (settings.name().to_owned(), "a queue just made".to_owned());
            Refusal::Taken { field: "name or uri", value, holder }.into()
        }
        StoreError::Missing => Refusal::NoSuchQueue { wanted: format!("id {}", id.0) }.into(),
        StoreError::Away(_) => Failure::Store(e.to_string()),
        StoreError::Lost => Failure::NotOwner,
        StoreError::InDoubt(_) => Failure::Lost,
    }
}
