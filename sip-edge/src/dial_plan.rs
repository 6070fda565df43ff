//! The dial plan: which call plan an INVITE gets. Read once, at start.

use crate::plan::{self, Invalid};
use crate::trunk::{Trunk, Trunks, block};
use anyhow::{Context as _, bail};
use call::{Action, Plan};
use ipnet::IpNet;
use proto::sip_edge::v1 as wire;
use regex::Regex;
use std::collections::HashSet;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

/// Routes of a dial plan.
const ROUTES_MAX: usize = 1_000;

#[derive(Debug)]
pub(crate) struct DialPlan {
    routes: Vec<Route>,
    trunks: Trunks,
}

#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) name: String,
    pub(crate) plan: Plan,
    uri: Option<Regex>,
    source: Option<IpNet>,
    queue_uri: bool,
    require_auth: bool,
    trunk: Option<Arc<Trunk>>,
}

/// What an INVITE is matched by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Subject<'a> {
    pub(crate) request_uri: &'a str,
    pub(crate) source: IpAddr,
    /// Whether digest has proved who calls.
    pub(crate) authenticated: bool,
    /// Whether the request URI is the URI of a queue; `None` if nobody has been asked.
    pub(crate) queue_uri: Option<bool>,
}

#[derive(Debug)]
pub(crate) enum Match<'a> {
    Route(&'a Route),
    /// The first route that fits wants to know who calls.
    Challenge,
    /// It depends on whether the request URI is that of a queue.
    AskQueues,
    Nothing,
}

impl Default for DialPlan {
    /// URIs of queues lead to their queues; nothing else leads anywhere.
    fn default() -> Self {
        let route = Route {
            name: "queues".to_owned(),
            plan: Plan::new([Action::Enqueue(Arc::default())]),
            uri: None,
            source: None,
            queue_uri: true,
            require_auth: false,
            trunk: None,
        };
        Self { routes: vec![route], trunks: Trunks::default() }
    }
}

impl DialPlan {
    /// # Errors
    /// If the file cannot be read or is no dial plan: which route and field, and what is wanted.
    pub(crate) fn read(file: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(file)
            .with_context(|| format!("read --dial-plan {}", file.display()))?;
        let folder = file.parent().unwrap_or(Path::new("."));
        Self::parse(&text, folder).with_context(|| format!("read --dial-plan {}", file.display()))
    }

    pub(crate) fn trunks(&self) -> &Trunks {
        &self.trunks
    }

    fn parse(yaml: &str, folder: &Path) -> anyhow::Result<Self> {
        let value: serde_yaml_ng::Value = serde_yaml_ng::from_str(yaml).context("parse YAML")?;
        let json = serde_json::to_value(&value).context("read YAML as JSON")?;
        let routes = json.get("routes").and_then(serde_json::Value::as_array);
        for (index, route) in routes.into_iter().flatten().enumerate() {
            // Each by itself first, so that an error says where it is.
            if let Err(e) = proto::json::from_json::<wire::Route>(&route.to_string()) {
                let name = route.get("name").map_or(String::new(), |name| format!(" {name}"));
                bail!("route{name} (routes[{index}]): {}", without_position(&e));
            }
        }
        let wire: wire::DialPlan = proto::json::from_json(&json.to_string())
            .map_err(|e| anyhow::anyhow!("{}", without_position(&e)))?;
        if wire.routes.len() > ROUTES_MAX {
            let wanted = format!("at most {ROUTES_MAX}");
            return Err(Invalid::new("routes", wire.routes.len(), wanted).into());
        }
        let trunks = Trunks::read(&wire.trunks, folder)?;
        let mut names = HashSet::new();
        let mut routes = Vec::with_capacity(wire.routes.len());
        for (index, route) in wire.routes.iter().enumerate() {
            if !names.insert(&route.name) || route.name.is_empty() {
                let wanted = "a name that no other route has";
                return Err(
                    Invalid::new(format!("routes[{index}].name"), &route.name, wanted).into()
                );
            }
            routes.push(
                Route::new(route, &trunks).with_context(|| format!("route {:?}", route.name))?,
            );
        }
        Ok(Self { routes, trunks })
    }

    /// The first route that `subject` fits.
    pub(crate) fn find(&self, subject: Subject<'_>) -> Match<'_> {
        let uri = without_parameters(subject.request_uri);
        for (index, route) in self.routes.iter().enumerate() {
            let fits = route.uri.as_ref().is_none_or(|it| it.is_match(uri))
                && route.source.as_ref().is_none_or(|it| it.contains(&subject.source))
                && route.trunk.as_ref().is_none_or(|it| it.has_source(subject.source));
            if !fits || route.queue_uri && subject.queue_uri == Some(false) {
                continue;
            }
            let last = index + 1 == self.routes.len();
            if route.queue_uri && subject.queue_uri.is_none() && !(last && route.asks_queue()) {
                return Match::AskQueues;
            }
            return match route.require_auth && !subject.authenticated {
                true => Match::Challenge,
                false => Match::Route(route),
            };
        }
        Match::Nothing
    }
}

/// Without the line and column, which are those of the JSON that we made of the YAML.
fn without_position(e: &impl std::fmt::Display) -> String {
    let text = e.to_string();
    let end = text.rfind(" at line ").unwrap_or(text.len());
    text[..end].to_owned()
}

impl Route {
    fn new(wire: &wire::Route, trunks: &Trunks) -> anyhow::Result<Self> {
        let uri = Some(wire.uri.as_str()).filter(|it| !it.is_empty());
        let source = Some(wire.source.as_str()).filter(|it| !it.is_empty());
        let wanted = "a call plan, e.g. `plan: {actions: [{enqueue: {}}]}`";
        let plan = wire.plan.as_ref().ok_or_else(|| Invalid::new("plan", "nothing", wanted))?;
        let trunk = Some(wire.trunk.as_str()).filter(|it| !it.is_empty());
        let named = |name| {
            let wanted = "the name of one of the trunks";
            trunks.named(name).ok_or_else(|| Invalid::new("trunk", name, wanted))
        };
        Ok(Self {
            trunk: trunk.map(named).transpose()?,
            name: wire.name.clone(),
            plan: plan::plan("plan", plan)?,
            uri: uri.map(Regex::new).transpose().context("uri: read the regular expression")?,
            source: source.map(block).transpose()?,
            queue_uri: wire.queue_uri,
            require_auth: wire.require_auth,
        })
    }

    /// Its first action lets queue-svc find the queue by the request URI, and says 404 if there is
    /// none: nobody else need be asked before.
    fn asks_queue(&self) -> bool {
        matches!(self.plan.action(0), Some(Action::Enqueue(it)) if it.queue.is_none())
    }
}

/// The URI up to its parameters and headers; those of the user part are part of the user.
fn without_parameters(uri: &str) -> &str {
    let host = uri.find('@').map_or(0, |at| at + 1);
    let end = uri[host..].find([';', '?']).map_or(uri.len(), |at| host + at);
    &uri[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: &str = r#"
routes:
  - name: support
    uri: "^sip:1008@"
    plan: {actions: [{enqueue: {queue: abc}}]}
  - name: inside
    source: 10.0.0.0/8
    require_auth: true
    plan: {actions: [{dial: {target: user/1000}}]}
  - name: queues
    queue_uri: true
    plan: {actions: [{enqueue: {}}]}
  - name: menu
    plan:
      actions:
        - collect: {prompt: {file: menu.wav}, on: {1: {actions: [{park: {}}]}}}
"#;

    #[test]
    fn the_first_route_that_fits_is_taken() {
        let plan = parse(PLAN).unwrap();
        check(&plan, "sip:1008@h;x=y", "192.0.2.1", false, None, "support");
        check(&plan, "sip:9@h;a=sip:1008@", "192.0.2.1", false, Some(false), "menu");
        check(&plan, "sip:9@h", "10.1.2.3", false, None, "challenge");
        check(&plan, "sip:9@h", "10.1.2.3", true, None, "inside");
        check(&plan, "sip:9@h", "192.0.2.1", true, None, "ask");
        check(&plan, "sip:9@h", "192.0.2.1", true, Some(true), "queues");
    }

    #[test]
    fn without_a_file_queue_svc_decides_alone() {
        check(&DialPlan::default(), "sip:1008@h", "192.0.2.1", false, None, "queues");
        let none = parse("routes: []").unwrap();
        check(&none, "sip:1008@h", "192.0.2.1", false, None, "nothing");
    }

    #[test]
    fn an_error_names_route_and_field() {
        for (yaml, expected) in [
            ("routes: [{name: a}]", "route \"a\": plan: got \"nothing\", wanted a call plan"),
            ("routes: [{plan: {}}]", "routes[0].name: got \"\""),
            ("routes: [{name: a, plan: {}}, {name: a, plan: {}}]", "routes[1].name: got \"a\""),
            ("routes: [{name: a, uri: '(', plan: {}}]", "route \"a\": uri: read the regular"),
            ("routes: [{name: a, source: x, plan: {}}]", "route \"a\": source: got \"x\""),
            (
                "routes: [{name: a, plan: {actions: [{hangup: {cause: X}}]}}]",
                "route \"a\": plan.actions[0].hangup.cause: got \"X\"",
            ),
            (
                "routes: [{nam: a}]",
                "route (routes[0]): not a sip_edge.v1.Route: unrecognized field",
            ),
            (
                "routes: [{name: a, plan: {actions: [{schedule: {after_ms: 20s}}]}}]",
                "route \"a\" (routes[0]): not a sip_edge.v1.Route: invalid digit found in string",
            ),
            ("rotes: []", "not a sip_edge.v1.DialPlan: unrecognized field name 'rotes'"),
            ("routes: [", "parse YAML: "),
        ] {
            let error = format!("{:#}", parse(yaml).unwrap_err());
            assert!(error.starts_with(expected), "{error}");
        }
    }

    #[test]
    fn a_route_of_a_trunk_is_taken_from_its_sources_only() {
        let yaml = r#"
trunks: [{name: carrier, uri: "sip:carrier.example", sources: [192.0.2.0/24, 198.51.100.7]}]
routes: [{name: inbound, trunk: carrier, plan: {actions: [{enqueue: {queue: abc}}]}}]
"#;
        let plan = parse(yaml).unwrap();
        check(&plan, "sip:1@h", "192.0.2.9", false, None, "inbound");
        check(&plan, "sip:1@h", "198.51.100.7", false, None, "inbound");
        check(&plan, "sip:1@h", "198.51.100.8", false, None, "nothing");
        let unknown = yaml.replace("trunk: carrier", "trunk: other");
        let error = format!("{:#}", parse(&unknown).unwrap_err());
        assert!(error.starts_with("route \"inbound\": trunk: got \"other\""), "{error}");
    }

    #[test]
    fn the_example_in_the_manual_does_what_it_says() {
        let text = include_str!("../../docs/dial-plan.md");
        let example = text.split("```yaml\n").nth(1).and_then(|it| it.split("```").next());
        let plan = parse(example.unwrap()).unwrap();
        check(&plan, "sip:1008@h", "192.0.2.1", false, Some(true), "queues");
        check(&plan, "sip:+4930123456@h", "203.0.113.9", false, Some(false), "sales");
        check(&plan, "sip:+4930123456@h", "192.0.2.1", false, Some(false), "nothing");
        check(&plan, "sip:*1@h", "192.0.2.1", false, Some(false), "challenge");
        check(&plan, "sip:00491@h", "192.0.2.1", true, Some(false), "out");
    }

    fn parse(yaml: &str) -> anyhow::Result<DialPlan> {
        DialPlan::parse(yaml, Path::new("."))
    }

    fn check(
        plan: &DialPlan,
        request_uri: &str,
        source: &str,
        authenticated: bool,
        queue_uri: Option<bool>,
        expected: &str,
    ) {
        let source = source.parse().unwrap();
        let found = plan.find(Subject { request_uri, source, authenticated, queue_uri });
        let found = match &found {
            Match::Route(route) => route.name.as_str(),
            Match::Challenge => "challenge",
            Match::AskQueues => "ask",
            Match::Nothing => "nothing",
        };
        assert_eq!(found, expected, "{request_uri}");
    }
}
