//! The SIP socket of a phone: receives, answers what needs no thought, keeps the rest for the test.

use crate::phone::PATIENCE;
use crate::phone::message::{self, Request, status, token};
use anyhow::{Context as _, bail};
use rsip::headers::UntypedHeader as _;
use rsip::message::HeadersExt as _;
use rsip::{Method, SipMessage};
use std::collections::{HashMap, HashSet, VecDeque};
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// RFC 3261 §17.1.1.1.
const T1: Duration = Duration::from_millis(500);
/// Messages that wait for the test; older ones go first.
const INBOX_MAX: usize = 1_000;
const DATAGRAM_BYTES_MAX: usize = 65_535;

/// A message and when it came.
#[derive(Clone)]
pub(crate) struct Heard {
    pub(crate) at_unix_ms: i64,
    pub(crate) from: SocketAddr,
    pub(crate) message: SipMessage,
}

impl Heard {
    pub(crate) fn request(&self) -> Option<&rsip::Request> {
        match &self.message {
            SipMessage::Request(request) => Some(request),
            SipMessage::Response(_) => None,
        }
    }

    pub(crate) fn response(&self) -> Option<&rsip::Response> {
        match &self.message {
            SipMessage::Response(response) => Some(response),
            SipMessage::Request(_) => None,
        }
    }
}

pub(crate) struct Wire {
    pub(crate) local: SocketAddr,
    socket: UdpSocket,
    state: Mutex<State>,
    grown: Condvar,
    stopped: AtomicBool,
}

#[derive(Default)]
struct State {
    inbox: VecDeque<Heard>,
    /// Last response per branch, for retransmitted requests.
    responses: HashMap<String, Vec<u8>>,
    /// INVITEs that have no final response yet, by Call-ID.
    ringing: HashMap<String, rsip::Request>,
    /// Contact of the other side's last UPDATE and where that came from, by Call-ID.
    moved: HashMap<String, (String, SocketAddr)>,
    /// Call-IDs of dialogs that this phone does not know any more.
    forgotten: HashSet<String>,
    /// ACKs for 200s by Call-ID and CSeq number, for retransmitted ones.
    acks: HashMap<(String, u32), Vec<u8>>,
}

impl Wire {
    pub(crate) fn bind() -> anyhow::Result<Arc<Self>> {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.set_read_timeout(Some(Duration::from_millis(100)))?;
        let wire = Arc::new(Self {
            local: socket.local_addr()?,
            socket,
            state: Mutex::default(),
            grown: Condvar::new(),
            stopped: AtomicBool::new(false),
        });
        let weak = Arc::downgrade(&wire);
        std::thread::spawn(move || {
            let mut datagram = vec![0; DATAGRAM_BYTES_MAX];
            while let Some(wire) = weak.upgrade().filter(|it| !it.stopped.load(Ordering::Relaxed)) {
                if let Ok((len, from)) = wire.socket.recv_from(&mut datagram) {
                    wire.receive(&datagram[..len], from);
                }
            }
        });
        Ok(wire)
    }

    fn receive(&self, datagram: &[u8], from: SocketAddr) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is set");
        let Ok(message) = SipMessage::try_from(datagram) else { return };
        let heard = Heard { at_unix_ms: now.as_millis() as i64, from, message };
        let fresh = match &heard.message {
            SipMessage::Request(request) => self.handle_request(request, from),
            SipMessage::Response(response) => self.handle_response(response, from),
        };
        if fresh {
            let mut state = self.state.lock().unwrap();
            if state.inbox.len() == INBOX_MAX {
                state.inbox.pop_front();
            }
            state.inbox.push_back(heard);
            self.grown.notify_all();
        }
    }

    /// Whether the test should see it.
    fn handle_request(&self, request: &rsip::Request, from: SocketAddr) -> bool {
        let branch = branch_of(request);
        let repeated = self.state.lock().unwrap().responses.get(&branch).cloned();
        match (&request.method, repeated) {
            (Method::Ack, _) => true,
            (_, Some(response)) => {
                self.send(&response, from);
                false
            }
            (_, None) if self.has_forgotten(request) => {
                let line = "481 Call/Transaction Does Not Exist";
                self.respond(request, from, line, "", "", "");
                true
            }
            (Method::Invite, None) => {
                self.respond(request, from, "100 Trying", "", "", "");
                let mut state = self.state.lock().unwrap();
                state.ringing.insert(call_id_of(&request.headers), request.clone());
                true
            }
            (Method::Cancel, None) => {
                let call_id = call_id_of(&request.headers);
                let invite = self.state.lock().unwrap().ringing.remove(&call_id);
                // The INVITE has the same branch: its response must be the one that is repeated.
                self.send(&message::response(request, "200 OK", &token(), "", ""), from);
                if let Some(invite) = invite {
                    self.respond(&invite, from, "487 Request Terminated", &token(), "", "");
                }
                true
            }
            (_, None) => {
                if let (Method::Update, Ok(contact)) = (&request.method, request.contact_header()) {
                    let target = message::uri_of(contact.value()).to_owned();
                    let mut state = self.state.lock().unwrap();
                    state.moved.insert(call_id_of(&request.headers), (target, from));
                    self.grown.notify_all();
                }
                self.respond(request, from, "200 OK", &token(), "", "");
                true
            }
        }
    }

    /// Whether the test should see it: a repeated 200 only gets its ACK again.
    fn handle_response(&self, response: &rsip::Response, from: SocketAddr) -> bool {
        let key = (call_id_of(&response.headers), cseq_of(&response.headers).0);
        let ack = self.state.lock().unwrap().acks.get(&key).cloned();
        match ack.filter(|_| status(response) == 200 && cseq_of(&response.headers).1 == "INVITE") {
            Some(ack) => {
                self.send(&ack, from);
                false
            }
            None => true,
        }
    }

    /// Answers a request, and its retransmissions from now on.
    pub(crate) fn respond(
        &self,
        request: &rsip::Request,
        to: SocketAddr,
        line: &str,
        tag: &str,
        headers: &str,
        body: &str,
    ) {
        let response = message::response(request, line, tag, headers, body);
        let mut state = self.state.lock().unwrap();
        if !line.starts_with('1') {
            state.ringing.remove(&call_id_of(&request.headers));
        }
        state.responses.insert(branch_of(request), response.clone());
        drop(state);
        self.send(&response, to);
    }

    /// Sends the ACK of a 200, and again whenever the 200 is repeated.
    pub(crate) fn acknowledge(&self, ack: &Request, to: SocketAddr) {
        let bytes = ack.to_bytes();
        let key = (ack.call_id.clone(), ack.cseq);
        self.state.lock().unwrap().acks.insert(key, bytes.clone());
        self.send(&bytes, to);
    }

    /// Sends a request until it is answered; its final response.
    pub(crate) fn transact(
        &self,
        request: &Request,
        to: SocketAddr,
    ) -> anyhow::Result<rsip::Response> {
        self.send_until(request, to, |status| status >= 200)
    }

    /// Sends a request until it gets a response that is `enough`, or a final one; which that is.
    pub(crate) fn send_until(
        &self,
        request: &Request,
        to: SocketAddr,
        enough: impl Fn(u16) -> bool,
    ) -> anyhow::Result<rsip::Response> {
        let deadline = Instant::now() + PATIENCE;
        let (mut interval, mut provisional) = (T1, false);
        loop {
            if !provisional {
                self.send(&request.to_bytes(), to);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let patience = if provisional { left } else { left.min(interval) };
            interval *= 2;
            match self.wait_for("a response", patience, |heard| answers(heard, request)) {
                Ok(heard) => {
                    let response = heard.response().expect("only responses answer").clone();
                    self.acknowledge_failure(request, &response, to);
                    if status(&response) >= 200 || enough(status(&response)) {
                        return Ok(response);
                    }
                    provisional = true;
                }
                Err(e) if Instant::now() >= deadline => {
                    return Err(e.context(format!("send {} {}", request.method, request.uri)));
                }
                Err(_) => (),
            }
        }
    }

    /// The final response of a request that was sent before.
    pub(crate) fn wait_final(
        &self,
        request: &Request,
        from: SocketAddr,
    ) -> anyhow::Result<rsip::Response> {
        let heard = self.wait_for("a final response", PATIENCE, |heard| {
            answers(heard, request) && heard.response().is_some_and(|it| status(it) >= 200)
        })?;
        let response = heard.response().expect("only responses answer").clone();
        self.acknowledge_failure(request, &response, from);
        Ok(response)
    }

    /// RFC 3261 §17.1.1.3: the ACK of anything but a 2xx belongs to the INVITE's transaction.
    fn acknowledge_failure(&self, request: &Request, response: &rsip::Response, to: SocketAddr) {
        if request.method == "INVITE" && status(response) >= 300 {
            let remote = message::header(&response.headers, "To").unwrap_or_default();
            let (uri, from, call_id) = (&request.uri, &request.from, &request.call_id);
            let mut ack = Request::within("ACK", uri, from, &remote, call_id, request.cseq, self);
            ack.branch = request.branch.clone();
            self.send(&ack.to_bytes(), to);
        }
    }

    pub(crate) fn send(&self, message: &[u8], to: SocketAddr) {
        let _ = self.socket.send_to(message, to); // UDP: whoever waits for an answer will tell.
    }

    /// Takes the first message that `wanted` accepts, among those here and those to come.
    pub(crate) fn wait_for(
        &self,
        what: &str,
        limit: Duration,
        wanted: impl Fn(&Heard) -> bool,
    ) -> anyhow::Result<Heard> {
        let deadline = Instant::now() + limit;
        let mut state = self.state.lock().unwrap();
        loop {
            if let Some(at) = state.inbox.iter().position(&wanted) {
                return state.inbox.remove(at).context("it was there");
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let heard: Vec<String> =
                    state.inbox.iter().map(|it| first_line(&it.message)).collect();
                bail!("the phone did not get {what} within {limit:?}; unread: {heard:?}");
            }
            state = self.grown.wait_timeout(state, left).unwrap().0;
        }
    }

    /// From now on what comes inside this dialog is answered with 481.
    pub(crate) fn forget(&self, call_id: &str) {
        self.state.lock().unwrap().forgotten.insert(call_id.to_owned());
    }

    fn has_forgotten(&self, request: &rsip::Request) -> bool {
        self.state.lock().unwrap().forgotten.contains(&call_id_of(&request.headers))
    }

    /// Where the other side of a dialog is since its last UPDATE: its Contact and its address.
    pub(crate) fn moved(&self, call_id: &str) -> Option<(String, SocketAddr)> {
        self.state.lock().unwrap().moved.get(call_id).cloned()
    }

    /// Waits for an UPDATE of that dialog from `addr`; one that was before counts.
    pub(crate) fn wait_moved(&self, call_id: &str, addr: SocketAddr) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let mut state = self.state.lock().unwrap();
        while state.moved.get(call_id).is_none_or(|(_, from)| *from != addr) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!("the phone did not get an UPDATE from {addr} within {PATIENCE:?}");
            }
            state = self.grown.wait_timeout(state, left).unwrap().0;
        }
        Ok(())
    }

    pub(crate) fn has(&self, wanted: impl Fn(&Heard) -> bool) -> bool {
        self.state.lock().unwrap().inbox.iter().any(wanted)
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
    }
}

fn answers(heard: &Heard, request: &Request) -> bool {
    heard.response().is_some_and(|response| {
        let cseq = cseq_of(&response.headers);
        call_id_of(&response.headers) == request.call_id
            && cseq == (request.cseq, request.method.clone())
    })
}

fn first_line(message: &SipMessage) -> String {
    message.to_string().lines().next().unwrap_or_default().to_owned()
}

fn call_id_of(headers: &rsip::Headers) -> String {
    message::header(headers, "Call-ID").unwrap_or_default()
}

fn cseq_of(headers: &rsip::Headers) -> (u32, String) {
    let cseq = message::header(headers, "CSeq").unwrap_or_default();
    let (number, method) = cseq.split_once(' ').unwrap_or_default();
    (number.parse().unwrap_or_default(), method.trim().to_owned())
}

/// Transaction of a request; CANCEL and ACK have that of their INVITE, so the method belongs to it.
fn branch_of(request: &rsip::Request) -> String {
    let branch = request.transaction_id().ok().flatten().map(|it| it.to_string());
    format!("{} {}", request.method, branch.unwrap_or_default())
}
