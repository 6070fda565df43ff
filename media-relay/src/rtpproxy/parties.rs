//! `U` and `L`: where the parties of a call are, and which ports they get.

use super::calls::{Call, Notified};
use super::command::{Party, Place};
use super::error_code::ErrorCode;
use super::modifiers::Modifiers;
use super::notifier::listed;
use super::place::{Placing, place};
use super::server::{Answer, Server, Settings, overloaded};
use super::sub_command::SubCommand;
use crate::packet_thread::OfferError;
use media::{Error, Side};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};
use tracing::{info, warn};

impl Server {
    /// `U`, and `L`, which knows only sessions that are there.
    pub(super) async fn place(
        &mut self,
        place: Place,
        is_lookup: bool,
        sub_commands: Vec<SubCommand>,
        client: Option<IpAddr>,
    ) -> Answer {
        let Place { modifiers, party, remote, notify } = place;
        self.check(&modifiers, remote)?;
        let list = &self.settings.notify;
        let notify = match notify {
            Some(it) => {
                let socket = listed(&it.socket, client, list).ok_or(ErrorCode::Notify)?;
                Some(Notified { socket, tag: it.tag })
            }
            None => None,
        };
        let found = self.calls.find_exact(&party).map(|(it, side)| (it.session_id.clone(), side));
        let (session_id, side, is_new) = match found {
            Some((session_id, side)) => (session_id, side, false),
            None if is_lookup => return Ok("0".to_owned()),
            None if *self.draining.borrow() => return Err(ErrorCode::Draining),
            None => (boot::new_id(), Side::A, true),
        };
        let speaker = if is_lookup { side.other() } else { side };
        let known = self.calls.get(&session_id).and_then(|it| it.notify.clone());
        let digits = digits_of(&sub_commands, notify.as_ref().or(known.as_ref()))?;
        let new = Call::new(session_id.clone(), &party, Instant::now() + self.settings.ttl);
        let name = self.calls.get(&session_id).unwrap_or(&new).name();
        let placing = Placing {
            session_id: session_id.clone(),
            name,
            side: speaker,
            remote,
            symmetric: !modifiers.asymmetric,
            payload_types: modifiers.codecs.clone(),
            telephone_event: digits.as_ref().map(|(_, number)| *number),
        };
        let ports = self.place_one(placing.clone()).await?;
        if is_new {
            self.totals.created += 1;
            info!(session_id, sip_call_id = new.call_id, "rtpproxy session made");
            self.calls.insert(new);
        }
        if let Some(call) = self.calls.get_mut(&session_id) {
            match (is_lookup, modifiers.weak) {
                (false, true) => call.weak[speaker as usize] = true,
                (false, false) => call.strong = true,
                (true, _) => (),
            }
            call.notify = notify.or(call.notify.take());
            if let Some((notified, _)) = digits {
                call.digits[speaker as usize] = Some(notified);
            }
            let hearer = &mut call.packet_time_ms[speaker.other() as usize];
            *hearer = modifiers.packet_time_ms.or(*hearer);
        }
        let mut told = self.port(ports[speaker.other() as usize]);
        for sub_command in sub_commands {
            told.push_str(" && ");
            told.push_str(&self.place_more(&placing, &party, sub_command).await?);
        }
        Ok(told)
    }

    async fn place_one(&self, placing: Placing) -> Result<[u16; 2], ErrorCode> {
        let session_id = placing.session_id.clone();
        let placed = self.packets.call(move |it| place(it, placing)).await.map_err(overloaded)?;
        placed.map_err(|e| {
            warn!(session_id, "failed to place a party: {e}");
            match e {
                OfferError::Bind(_) | OfferError::PortsTaken => ErrorCode::NoPorts,
                OfferError::Relay(Error::Ports(_)) => ErrorCode::NoPorts,
                OfferError::Relay(Error::SessionsUsedUp { .. }) => ErrorCode::NoMoreSessions,
                OfferError::Relay(_) => ErrorCode::RemoteAddress,
            }
        })
    }

    /// A sub-command of `U` or `L`.
    async fn place_more(
        &mut self,
        placing: &Placing,
        party: &Party,
        sub_command: SubCommand,
    ) -> Answer {
        match sub_command {
            SubCommand::CatchDigits { .. } => Ok("0".to_owned()),
            SubCommand::Delete { weak } => self.delete(party, weak).await,
            SubCommand::TimeToLive { seconds } => {
                self.set_ttl(&placing.session_id, seconds);
                Ok("0".to_owned())
            }
            SubCommand::Other { modifiers, remote } => {
                self.check(&modifiers, remote)?;
                let side = placing.side.other();
                let other = Placing {
                    side,
                    remote,
                    symmetric: !modifiers.asymmetric,
                    payload_types: modifiers.codecs,
                    telephone_event: None,
                    ..placing.clone()
                };
                let ports = self.place_one(other).await?;
                Ok(self.port(ports[side.other() as usize]))
            }
        }
    }

    pub(super) fn set_ttl(&mut self, session_id: &str, seconds: u32) {
        if let Some(call) = self.calls.get_mut(session_id) {
            call.ttl_s = Some(seconds);
        }
        let at = Instant::now() + Duration::from_secs(seconds.into()).min(self.settings.ttl);
        self.calls.look_again(session_id, at);
    }

    /// Refuses an address that we do not have, or do not reach.
    fn check(&self, modifiers: &Modifiers, remote: Option<SocketAddr>) -> Result<(), ErrorCode> {
        let Settings { address, bound, .. } = self.settings;
        let is_local = |it: IpAddr| it == address || it == bound;
        let is_other_family = |it: IpAddr| it.is_ipv4() != address.is_ipv4();
        match () {
            () if modifiers.ipv6 && address.is_ipv4() => Err(ErrorCode::Family),
            () if modifiers.local.is_some_and(|it| !is_local(it)) => Err(ErrorCode::LocalAddress),
            () if modifiers.route_to.is_some_and(is_other_family) => {
                Err(ErrorCode::NoLocalForRemote)
            }
            () if remote.is_some_and(|it| is_other_family(it.ip())) => {
                Err(ErrorCode::NoLocalForRemote)
            }
            () => Ok(()),
        }
    }

    pub(super) fn port(&self, port: u16) -> String {
        match self.settings.address {
            IpAddr::V4(address) => format!("{port} {address}"),
            IpAddr::V6(address) => format!("{port} {address} 6"),
        }
    }
}

/// Where to tell of digits, and which payload type has them.
fn digits_of(
    sub_commands: &[SubCommand],
    notify: Option<&Notified>,
) -> Result<Option<(Notified, u8)>, ErrorCode> {
    let digits = sub_commands.iter().find_map(|it| match it {
        SubCommand::CatchDigits { tag, payload_type } => Some((tag, payload_type)),
        _ => None,
    });
    let Some((tag, payload_type)) = digits else { return Ok(None) };
    let socket = notify.ok_or(ErrorCode::Notify)?.socket.clone();
    Ok(Some((Notified { socket, tag: tag.clone() }, *payload_type)))
}
