//! Who follows a document: runs its scripts, keeps the ids that they print, and has phones that answer.

use crate::Ports;
use crate::document::{self, Script};
use crate::phone::{Dialog, Phone};
use serde_json::Value;
use std::time::Duration;

/// How often phones look for calls while a script runs.
const POLL: Duration = Duration::from_millis(20);

/// What a reader would put into shell variables: the last ids that were printed.
#[derive(Default)]
pub struct Ids {
    pub call: String,
    pub task: String,
}

pub struct Reader<'a> {
    ports: Ports,
    phones: &'a [Phone],
    /// The last call that each phone has answered.
    pub calls: Vec<Option<Dialog<'a>>>,
    pub ids: Ids,
}

impl<'a> Reader<'a> {
    /// Of documents about what listens on `ports`, beside `phones`, which are registered.
    pub fn new(ports: Ports, phones: &'a [Phone]) -> Self {
        let calls = phones.iter().map(|_| None).collect();
        Self { ports, phones, calls, ids: Ids::default() }
    }

    /// Runs a script to its end, while the registered phones answer.
    ///
    /// # Errors
    /// As [`Script::run`].
    pub fn run(&mut self, script: &Script) -> anyhow::Result<()> {
        let ids = [("CALL_ID", self.ids.call.clone()), ("TASK_ID", self.ids.task.clone())];
        let variables = ids.each_ref().map(|(name, id)| (*name, id.as_str()));
        let ports = self.ports;
        let replaced = |text: &str| document::with_ports(text, ports);
        let messages = script.run_while(replaced, &variables, || {
            for (phone, call) in self.phones.iter().zip(&mut self.calls) {
                if let Ok(invitation) = phone.invited_within(POLL) {
                    *call = Some(invitation.answer()?);
                }
            }
            Ok(())
        })?;
        messages.iter().for_each(|message| self.note_ids(message));
        Ok(())
    }

    fn note_ids(&mut self, message: &Value) {
        let Value::Object(fields) = message else {
            return message.as_array().into_iter().flatten().for_each(|it| self.note_ids(it));
        };
        for (name, value) in fields {
            match (name.as_str(), value) {
                ("callId", Value::String(id)) => self.ids.call = id.clone(),
                ("taskId", Value::String(id)) => self.ids.task = id.clone(),
                ("limit", Value::String(id)) if self.ids.task.is_empty() => {
                    self.ids.task = id.clone();
                }
                _ => self.note_ids(value),
            }
        }
    }
}
