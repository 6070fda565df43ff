//! The users whom Debian's packages of databases make: the servers refuse to be root.

use anyhow::Context as _;
use std::process::Command;

/// Ids of this user and its group, if we are root; otherwise servers run as who we are.
///
/// # Errors
/// If there is no such user: its package is not installed.
pub(crate) fn user_if_root(name: &str) -> anyhow::Result<Option<(u32, u32)>> {
    let id = |args: &[&str]| -> anyhow::Result<u32> {
        let output = Command::new("id").args(args).output().context("run id")?;
        let text = String::from_utf8(output.stdout)?;
        text.trim().parse().with_context(|| format!("read the answer of id {args:?}: {text:?}"))
    };
    if id(&["-u"])? != 0 {
        return Ok(None);
    }
    Ok(Some((id(&["-u", name])?, id(&["-g", name])?)))
}
