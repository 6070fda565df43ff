//! Kamailio, a proxy and registrar that is not ours: with Record-Route in front of sip-edge, and as
//! the carrier at the other end of a trunk, which asks for digest.

use crate::{Process, free_port};
use anyhow::Context as _;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use tempfile::TempDir;

/// How long it may take to start.
const READY_LIMIT: Duration = Duration::from_secs(20);
/// How long it may take to end, its children included.
const STOP_LIMIT: Duration = Duration::from_secs(5);
/// Where Debian has its modules.
const MODULES: [&str; 2] =
    ["/usr/lib/x86_64-linux-gnu/kamailio/modules", "/usr/lib/aarch64-linux-gnu/kamailio/modules"];
/// Whom it lets register and call, with which password, in its realm.
pub const CUSTOMER: (&str, &str) = ("4930", "secret4930");

/// Requests of dialogs follow their routes. Others: its customer registers and calls, with digest,
/// and reaches `callee`; calls to the customer go where it has registered; all else goes to `edge`.
const CONFIG: &str = r#"#!KAMAILIO
debug=2
log_stderror=yes
fork=yes
children=2
disable_tcp=yes
auto_aliases=no
listen=udp:LISTEN
mpath="MODULES"
loadmodule "kex.so"
loadmodule "tm.so"
loadmodule "tmx.so"
loadmodule "sl.so"
loadmodule "rr.so"
loadmodule "pv.so"
loadmodule "textops.so"
loadmodule "maxfwd.so"
loadmodule "usrloc.so"
loadmodule "registrar.so"
loadmodule "auth.so"
loadmodule "siputils.so"
modparam("usrloc", "db_mode", 0)
modparam("rr", "append_fromtag", 1)

request_route {
    if (!mf_process_maxfwd_header("10")) { sl_send_reply("483", "Too Many Hops"); exit; }
    if (is_method("CANCEL")) { if (t_check_trans()) { t_relay(); } exit; }
    if (has_totag()) {
        if (loose_route()) { t_relay(); exit; }
        if (is_method("ACK")) { if (t_check_trans()) { t_relay(); } exit; }
        sl_send_reply("404", "Not Here");
        exit;
    }
    t_check_trans();
    if (is_method("REGISTER")) {
        if (!pv_www_authenticate("carrier", "PASSWORD", "0")) {
            www_challenge("carrier", "1");
            exit;
        }
        save("location");
        exit;
    }
    if (!is_method("INVITE")) { sl_send_reply("405", "Method Not Allowed"); exit; }
    record_route();
    if ($fU == "CUSTOMER") {
        if (!pv_proxy_authenticate("carrier", "PASSWORD", "0")) {
            proxy_challenge("carrier", "1");
            exit;
        }
        consume_credentials();
        $du = "sip:CALLEE";
        t_relay();
        exit;
    }
    if ($rU == "CUSTOMER") {
        if (!lookup("location")) { sl_send_reply("404", "Not Registered"); exit; }
        t_relay();
        exit;
    }
    $du = "sip:EDGE";
    t_relay();
}
"#;

pub struct Carrier {
    addr: SocketAddr,
    _folder: TempDir,
    process: Process,
}

impl Carrier {
    /// In front of the sip-edge at `edge`; what its customer calls rings at `callee`.
    pub fn start(edge: SocketAddr, callee: SocketAddr) -> anyhow::Result<Self> {
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        let folder = tempfile::tempdir().context("make a folder for Kamailio")?;
        let modules = MODULES.into_iter().find(|it| Path::new(it).exists());
        let modules = modules.with_context(|| format!("Kamailio is in none of {MODULES:?}"))?;
        let (customer, password) = CUSTOMER;
        let config = CONFIG
            .replace("LISTEN", &addr.to_string())
            .replace("MODULES", modules)
            .replace("PASSWORD", password)
            .replace("CUSTOMER", customer)
            .replace("CALLEE", &callee.to_string())
            .replace("EDGE", &edge.to_string());
        let file = folder.path().join("kamailio.cfg");
        std::fs::write(&file, config).context("write Kamailio's configuration")?;
        let mut command = Command::new("/usr/sbin/kamailio");
        command.arg("-f").arg(&file).args(["-DD", "-E", "-m", "64", "-M", "8"]);
        command.arg("-Y").arg(folder.path()).arg("-w").arg(folder.path());
        let process = Process::spawn("kamailio", &mut command)?;
        let carrier = Self { addr, _folder: folder, process };
        carrier.wait_ready()?;
        Ok(carrier)
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub fn output(&self) -> String {
        self.process.output()
    }

    /// It answers a request that it does not serve.
    fn wait_ready(&self) -> anyhow::Result<()> {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.set_read_timeout(Some(Duration::from_millis(200)))?;
        let from = socket.local_addr()?;
        let ask = format!(
            "OPTIONS sip:{} SIP/2.0\r\nVia: SIP/2.0/UDP {from};branch=z9hG4bKready;rport\r\n\
             Max-Forwards: 70\r\nFrom: <sip:test@{from}>;tag=1\r\nTo: <sip:{}>\r\n\
             Call-ID: ready@{from}\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n",
            self.addr, self.addr
        );
        let deadline = std::time::Instant::now() + READY_LIMIT;
        while std::time::Instant::now() < deadline {
            socket.send_to(ask.as_bytes(), self.addr)?;
            if socket.recv(&mut [0; 2_000]).is_ok() {
                return Ok(());
            }
        }
        anyhow::bail!("wait for Kamailio: it did not answer in time:\n{}", self.output())
    }
}

impl Drop for Carrier {
    /// SIGTERM: its children end with it, which they do not if it is killed.
    fn drop(&mut self) {
        let _ = self.process.stop(STOP_LIMIT); // It is killed then.
    }
}
