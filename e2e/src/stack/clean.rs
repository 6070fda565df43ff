//! What calls leave behind: nothing.

use super::Stack;
use anyhow::{Context as _, bail};
use proto::{media_relay, queue, scheduler, sip_edge};
use std::process::Command;
use std::time::{Duration, Instant};

/// How long what a call leaves behind may take to be gone after its end.
const CLEAN_LIMIT: Duration = Duration::from_secs(15);
const CLEAN_POLL: Duration = Duration::from_millis(50);

impl Stack {
    /// Waits until no call, caller, media session and task is left, and `mohqcalls` is empty.
    ///
    /// # Errors
    /// If that takes more than 15 s; says what is left.
    pub async fn wait_clean(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + CLEAN_LIMIT;
        loop {
            let left = self.leftovers().await?;
            match left.is_empty() {
                true => return Ok(()),
                false if Instant::now() > deadline => bail!("left over: {}", left.join(", ")),
                false => tokio::time::sleep(CLEAN_POLL).await,
            }
        }
    }

    async fn leftovers(&self) -> anyhow::Result<Vec<String>> {
        let calls = self.sip_edge().list_calls(sip_edge::v1::ListCallsRequest::default()).await?;
        let sessions = self.media_relay().query(media_relay::v1::QueryRequest::default()).await?;
        let tasks = self.scheduler().list(scheduler::v1::ListRequest::default()).await?;
        let mut left = vec![
            (calls.into_inner().live as usize, "live calls".to_owned()),
            (sessions.into_inner().total as usize, "media sessions".to_owned()),
            (tasks.into_inner().tasks.len(), "pending tasks".to_owned()),
            (self.mohqcalls()?.len(), "rows of mohqcalls".to_owned()),
        ];
        let queues = self.queues().list_queues(queue::v1::ListQueuesRequest {}).await?;
        for queue in queues.into_inner().queues {
            let request = queue::v1::CountRequest { queue: queue.name.clone() };
            let count = self.queues().count(request).await?.into_inner();
            let callers = (count.waiting + count.entering + count.leaving) as usize;
            left.push((callers, format!("callers in {}", queue.name)));
        }
        left.retain(|(count, _)| *count > 0);
        Ok(left.into_iter().map(|(count, what)| format!("{count} {what}")).collect())
    }

    /// Rows of the table as `call_id|call_status`, read by sqlite3 or psql, as a dashboard would.
    pub fn mohqcalls(&self) -> anyhow::Result<Vec<String>> {
        let sql = "SELECT call_id, call_status FROM mohqcalls ORDER BY id";
        let url = &self.databases.queue;
        let mut command = match url.strip_prefix("sqlite:") {
            Some(file) => {
                let mut command = Command::new("sqlite3");
                command.args(["-readonly", "-cmd", ".timeout 5000"]);
                command.arg(self.folder.join(file));
                command
            }
            None => {
                let mut command = Command::new("psql");
                command.args(["-At", url, "-c"]);
                command
            }
        };
        let output = command.arg(sql).output().with_context(|| format!("read {url}"))?;
        if !output.status.success() {
            bail!("read mohqcalls: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(String::from_utf8(output.stdout)?.lines().map(str::to_owned).collect())
    }
}
