//! Our registrations with trunks: where each is looked up, what it says, and where to go if one of
//! its places is dead.

use crate::edge::{Done, Edge};
use crate::locate::Place;
use crate::metrics;
use crate::resolve::towards;
use crate::trunk::Trunk;
use sip::{OutboundRegistration, Peer, RegistrantId, RegistrantState};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tracing::{info, warn};

/// How long a trunk that is found nowhere waits for the next lookup.
const LOOKUP_PAUSE: Duration = Duration::from_secs(30);

/// A registration of ours.
pub(crate) struct Registering {
    trunk: Arc<Trunk>,
    /// Begun at the first lookup that found something.
    registrant: Option<RegistrantId>,
    /// Where else the registrar is.
    others: VecDeque<Peer>,
    is_registered: bool,
}

/// Where a trunk is.
pub(crate) struct Located {
    trunk: String,
    places: Vec<Place>,
}

impl Edge {
    /// Begins to register with all trunks that want it.
    pub(crate) fn register_trunks(&mut self) {
        let dial_plan = self.settings.dial_plan.clone();
        for trunk in dial_plan.trunks().iter().filter(|trunk| trunk.register) {
            metrics::trunk_registered(&trunk.name, false);
            self.locate_trunk(trunk, Duration::ZERO);
            self.registering.push(Registering {
                trunk: trunk.clone(),
                registrant: None,
                others: VecDeque::new(),
                is_registered: false,
            });
        }
    }

    fn locate_trunk(&self, trunk: &Arc<Trunk>, wait: Duration) {
        let (trunk, done) = (trunk.clone(), self.done.clone());
        let locator = self.services.locator.clone();
        tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            let places = match trunk.wanted().place() {
                Some(place) => vec![place],
                None => locator.locate(trunk.wanted()).await,
            };
            let located = Located { trunk: trunk.name.clone(), places };
            let _ = done.send(Done::TrunkLocated(located)).await; // The process is ending.
        });
    }

    pub(crate) fn handle_trunk_located(&mut self, located: Located) {
        let advertised = self.settings.advertised.clone();
        let found = self.registering.iter_mut().find(|it| it.trunk.name == located.trunk);
        let Some(registering) = found else { return };
        let peers = located.places.iter().filter_map(|place| towards(*place, &advertised));
        let mut peers: VecDeque<_> = peers.collect();
        let trunk = registering.trunk.clone();
        let Some(peer) = peers.pop_front() else {
            warn!(trunk = trunk.name, "failed to find the trunk: no place that we can talk to");
            return self.locate_trunk(&trunk, LOOKUP_PAUSE);
        };
        for peer in peers.iter().chain([&peer]) {
            self.transports.expect_name(peer.addr, &trunk.wanted().host);
        }
        registering.others = peers;
        let now = Instant::now();
        match registering.registrant {
            Some(registrant) => self.user_agent.reroute(now, registrant, peer, false),
            None => self.begin_to_register(&trunk, peer),
        }
    }

    fn begin_to_register(&mut self, trunk: &Arc<Trunk>, peer: Peer) {
        let order = OutboundRegistration {
            registrar: trunk.uri().to_owned(),
            record: trunk.record().unwrap_or_default(),
            contact_user: trunk.user().unwrap_or_default().to_owned(),
            peer,
            credentials: trunk.credentials.clone(),
            expires_s: trunk.expires_s,
        };
        let begun = self.user_agent.register(Instant::now(), order);
        let found = self.registering.iter_mut().find(|it| it.trunk.name == trunk.name);
        match (begun, found) {
            (Ok(registrant), Some(registering)) => registering.registrant = Some(registrant),
            (Ok(_), None) => (),
            (Err(e), _) => warn!(trunk = trunk.name, "failed to register: {e}"),
        }
    }

    /// A registration of ours has come to something. Where nobody answers, or is overloaded, the
    /// next place is tried; after the last, they are looked up again.
    pub(crate) fn handle_registrant(&mut self, registrant: RegistrantId, state: &RegistrantState) {
        let found = self.registering.iter_mut().find(|it| it.registrant == Some(registrant));
        let Some(registering) = found else { return };
        let (trunk, was) = (registering.trunk.clone(), registering.is_registered);
        registering.is_registered = matches!(state, RegistrantState::Registered { .. });
        metrics::trunk_registered(&trunk.name, registering.is_registered);
        match state {
            RegistrantState::Registered { expires_s } if !was => {
                info!(trunk = trunk.name, expires_s, "registered");
            }
            RegistrantState::Registered { .. } => (), // Renewed.
            RegistrantState::Failed { status } => {
                warn!(trunk = trunk.name, status, "failed to register");
                let elsewhere = matches!(status, None | Some(503));
                match registering.others.pop_front().filter(|_| elsewhere) {
                    Some(peer) => {
                        self.user_agent.reroute(Instant::now(), registrant, peer, true);
                    }
                    None => self.locate_trunk(&trunk, Duration::ZERO),
                }
            }
        }
    }
}
